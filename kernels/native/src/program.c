/* Calls in a row, of which Python has laid out the arguments once: what it takes from one call to
   the next is one thread's, while the others wait. */
#include <stdint.h>

#include "export.h"
#include "parallel.h"

typedef struct {
  int64_t workers; /* its memory was laid out for so many threads; 0: for any number */
  int (*function)(const void *arguments);
  const void *arguments;
} program_call;

typedef struct {
  int64_t count;
  const program_call *calls;
} program_arguments;

XL_API int xl_program(const program_arguments *a);

/* The number of the first call that has a status, counted from 1: those behind it are not made. */
int xl_program(const program_arguments *a) {
  const int threads = xl_num_threads();
  for (int64_t e = 0; e < a->count; e++) {
    const program_call *one = a->calls + e;
    xl_set_threads(one->workers && one->workers < threads ? (int)one->workers : threads);
    if (one->function(one->arguments)) return (int)e + 1;
  }
  return 0;
}
