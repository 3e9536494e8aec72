#include "tools/ctl/postgres.h"

#include <stdio.h>
#include <string.h>

static bool has_password(const char *url)
{
    char *error = NULL;
    PQconninfoOption *options = PQconninfoParse(url, &error);
    bool found = false;
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        found = found || (strcmp(o->keyword, "password") == 0 && o->val != NULL);
    }
    PQconninfoFree(options);
    PQfreemem(error);
    return found;
}

enum ctl_exit postgres_url(struct ctl *ctl, bool required, const char **url)
{
    const struct ctl_value *v = ctl_value(&ctl->arguments, "postgres-url");
    *url = v->text;
    if (v->explicit && has_password(v->text)) {
        ctl_say("a password in --postgres-url can be read by everybody on this machine");
        ctl_hint("PGPASSFILE, or HOLDFAST_POSTGRES_URL in the environment");
        return CTL_USAGE;
    }
    if (!v->given && required) {
        ctl_say("which database? give --postgres-url or HOLDFAST_POSTGRES_URL");
        ctl_hint("holdfastctl %s --help", ctl->arguments.command->path);
        return CTL_USAGE;
    }
    return CTL_OK;
}

PGconn *postgres_connect(struct ctl *ctl, const char *url)
{
    char seconds[24];
    snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(ctl->timeout_ms + 999) / 1000);
    const char *const keywords[] = {"connect_timeout", "application_name", "dbname", NULL};
    const char *const values[] = {seconds, "holdfastctl", url, NULL};
    PGconn *connection = PQconnectdbParams(keywords, values, 1);
    if (PQstatus(connection) == CONNECTION_OK) {
        return connection;
    }
    ctl_say("PostgreSQL: %s", PQerrorMessage(connection)); /* libpq never prints the password */
    ctl_hint("holdfastctl persist status");
    PQfinish(connection);
    return NULL;
}
