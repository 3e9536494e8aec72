/* postgres: the database that the user names, for migrate and audit. */
#ifndef TOOLS_CTL_POSTGRES_H
#define TOOLS_CTL_POSTGRES_H

#include <libpq-fe.h>

#include "tools/ctl/ctl.h"

/* The URL from --postgres-url or the environment. A password in the flag is refused: everybody on
 * the machine could read it; in the environment it is taken. When none is given: *url is NULL, and
 * CTL_USAGE with a message if it is required. */
enum ctl_exit postgres_url(struct ctl *ctl, bool required, const char **url);

/* Connects within the command's timeout. NULL after saying why. PQfinish is the caller's. */
PGconn *postgres_connect(struct ctl *ctl, const char *url);

#endif
