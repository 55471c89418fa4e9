/* The weights file: 64 bytes of header, then the numbers, little-endian, where the program looks. */
#pragma once
#include <stdint.h>
#include <string.h>

#define WEIGHTS_HEADER 64
#define WEIGHTS_MAGIC "xlstm_rl"
#define WEIGHTS_VERSION 1

typedef struct {
  char magic[8];
  uint32_t version, order;     /* of the format; 0x01020304, in the byte order of the numbers */
  uint64_t bytes, layout, sum; /* of the file; which program reads it; CRC-32 of the numbers */
} weights_header;

/* CRC-32, as zlib has it */
static uint32_t sum_of(const unsigned char *p, size_t count) {
  uint32_t sum = UINT32_C(0xffffffff);
  for (size_t i = 0; i < count; i++) {
    sum ^= p[i];
    for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (UINT32_C(0xedb88320) & (0 - (sum & 1)));
  }
  return ~sum;
}

/* What is wrong with a weights file, or null */
static const char *check_weights_file(const void *file, size_t size, uint64_t bytes, uint64_t layout) {
  weights_header h;
  if (size < WEIGHTS_HEADER) return "the weights file is shorter than its header";
  memcpy(&h, file, sizeof h);
  if (memcmp(h.magic, WEIGHTS_MAGIC, 8)) return "this is not a weights file of xlstm_rl";
  if (h.order != UINT32_C(0x01020304)) return "the weights file has another byte order";
  if (h.version != WEIGHTS_VERSION) return "the weights file is of another version of the format";
  if (h.layout != layout) return "the weights file was written for another program";
  if (size != bytes || h.bytes != bytes) return "the weights file has another size: it was cut";
  if (sum_of((const unsigned char *)file + WEIGHTS_HEADER, size - WEIGHTS_HEADER) != h.sum)
    return "the weights file is damaged: its checksum differs";
  return 0;
}
