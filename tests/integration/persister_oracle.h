/* What PostgreSQL must hold after the first `count` events of a source, row by row, computed from
 * the events alone and compared with every row that is there. */
#ifndef TESTS_INTEGRATION_PERSISTER_ORACLE_H
#define TESTS_INTEGRATION_PERSISTER_ORACLE_H

#include "event_source.h"

/* Fails the test (cmocka) at the first difference. term: expected in every watermark row. */
void persister_oracle_check(const char *url, const struct event_source *source, uint64_t count,
                            const uint8_t cluster_id[16], uint64_t term);

#endif
