/* What every refusal of a damaged data directory ends with: one wording, so that it can be searched for
 * in docs/operations/corruption.md. */
#ifndef BASE_ADVICE_H
#define BASE_ADVICE_H

#define ADVICE_REBUILD                                                                             \
    "Nothing was changed: 'holdfastctl node verify DIR' tells more, 'holdfastctl node rebuild DIR' " \
    "puts this directory aside so that the node refills from its peers (docs/operations/corruption.md)"

#endif
