/* CRC-32C (Castagnoli), as iSCSI (RFC 3720) and ext4 use it: of records in the log, frames on the
 * wire and chunks of a checkpoint. Hardware instruction where the processor has it. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues from crc (0 to begin), so that crc32c(crc32c(0, a), b) is that of a and b joined. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The portable table-driven form: what crc32c falls back to. Public for the test that compares. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);

#endif
