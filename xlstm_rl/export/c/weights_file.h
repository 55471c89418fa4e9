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
  uint64_t bytes, layout, sum; /* of the file; which program reads it; FNV-1a of the numbers */
} weights_header;

/* What is wrong with a weights file, or null */
static const char *check_weights_file(const void *file, size_t size, uint64_t bytes, uint64_t layout) {
  weights_header h;
  const unsigned char *p = (const unsigned char *)file;
  uint64_t sum = UINT64_C(14695981039346656037);
  size_t i;
  if (size < WEIGHTS_HEADER) return "the weights file is shorter than its header";
  memcpy(&h, file, sizeof h);
  if (memcmp(h.magic, WEIGHTS_MAGIC, 8)) return "this is not a weights file of xlstm_rl";
  if (h.order != UINT32_C(0x01020304)) return "the weights file has another byte order";
  if (h.version != WEIGHTS_VERSION) return "the weights file is of another version of the format";
  if (h.layout != layout) return "the weights file was written for another program";
  if (size != bytes || h.bytes != bytes) return "the weights file has another size: it was cut";
  for (i = WEIGHTS_HEADER; i < size; i++) sum = (sum ^ p[i]) * UINT64_C(1099511628211);
  return sum == h.sum ? 0 : "the weights file is damaged: its checksum differs";
}
