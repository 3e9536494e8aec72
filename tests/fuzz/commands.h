/* One well-formed command of each kind and more, that fit together: what seeds are made of. */
#ifndef TESTS_FUZZ_COMMANDS_H
#define TESTS_FUZZ_COMMANDS_H

#include <stdbool.h>
#include <stdio.h>

#include "proto/command.h"

/* The i-th, in an order in which they can happen; false: there are no more. Texts live for ever. */
bool commands_example(unsigned i, struct command *c);

/* COMMAND_INIT with limits so small that they are reached; encoded into out. Returns the size. */
size_t commands_encode_init(uint8_t *out, size_t size);

#endif
