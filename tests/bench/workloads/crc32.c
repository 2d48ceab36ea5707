/* crc32.c - CRC-32 (IEEE 802.3), a table lookup a byte: one long chain of dependent loads. */
#include "workload.h"

enum { LENGTH = 16384 };

static uint32_t table[256];
static uint8_t data[LENGTH];

static void prepare(void) {
    uint32_t seed = 17;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (0xEDB88320u & (0u - (value & 1)));
        table[byte] = value;
    }
    for (int i = 0; i < LENGTH; i++) data[i] = (uint8_t)next_random(&seed);
}

uint32_t workload(uint32_t iterations) {
    uint32_t crc = 0xFFFFFFFFu;
    prepare();
    while (iterations--)
        for (int i = 0; i < LENGTH; i++) crc = table[(crc ^ data[i]) & 0xFF] ^ (crc >> 8);
    return ~crc;
}
