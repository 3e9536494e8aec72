/* sale_file: the definition of a sale as a JSON object, the same fields as PUT /v1/sales/{id}
 * takes. Strict: an unknown or repeated field, a wrong type or a value out of range is refused by
 * name. Pure but for reading the file. */
#ifndef TOOLS_CTL_SALE_FILE_H
#define TOOLS_CTL_SALE_FILE_H

#include <jansson.h>

#include "base/text.h"
#include "proto/command.h"

/* Fills what the object gives into *sale and leaves the rest alone. Texts borrow from root. Returns
 * 0, or -1 with a sentence in *wrong. Sets *has_offers when offers were given. */
int sale_file_read(json_t *root, struct command_sale *sale, bool *has_offers, struct text *wrong);

/* Loads one JSON object from a path, "-" for standard input. The root is the caller's. NULL with a
 * sentence in *wrong. */
json_t *sale_file_load(const char *path, struct text *wrong);

#endif
