/* A signal while LMDB's map is read becomes a message and an exit.
 *
 * The structure of the file is judged before it is opened (checkpoint_verify.c); what remains is a disk that
 * cannot read a page (SIGBUS), and pages that change afterwards. The handler does something only for a
 * thread that has said so; anybody else's signal goes on as if it were not there. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/check.h"
#include "storage/checkpoint_internal.h"

static const int signals[] = {SIGBUS, SIGSEGV};
static struct sigaction before[ARRAY_COUNT(signals)];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local const char *guarded; /* the path; NULL: not ours */

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (guarded != NULL) {
        say("error holdfast: ");
        say(guarded);
        say(number == SIGBUS ? "/data.mdb: the disk cannot read a page of it, or it was cut"
                             : "/data.mdb: a page of it leads nowhere: it is damaged");
        say(". " ADVICE_REBUILD "\n");
        _exit(CHECKPOINT_EXIT_CODE);
    }
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++) {
        if (signals[i] == number) {
            (void)sigaction(number, &before[i], NULL); /* happens again when we return */
        }
    }
    if (info->si_code <= 0) { /* but for one that was sent */
        (void)raise(number);
    }
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++) {
        CHECK(sigaction(signals[i], &action, &before[i]) == 0);
    }
}

const char *checkpoint_guard_begin(const char *path)
{
    const char *outer = guarded;
    CHECK(pthread_once(&once, install) == 0);
    guarded = path;
    return outer;
}

void checkpoint_guard_end(const char *outer)
{
    guarded = outer;
}
