/* Loops over a pool of threads.

   Indices are cut into one contiguous range a worker, always in the same way, so that a worker meets
   the same environments in every pass. What an index computes must depend on nothing but the
   index: then results are the same for any number of threads. */
#ifndef XL_PARALLEL_H
#define XL_PARALLEL_H

#include <stdint.h>

#include "export.h"

#define XL_MAX_THREADS 256

typedef void (*xl_body)(int index, int worker, void *context);

/* Run body(index, worker, context) for each index in [0, n), and return when all are done.
   Workers are numbered from 0, the calling thread, to less than xl_num_threads().
   Inside a body it runs inline as the same worker; while another thread uses the pool, inline as
   worker 0: what belongs to a worker (scratch) must belong to the call as well. */
void xl_parallel_for(int n, xl_body body, void *context);

/* Where the share of a worker begins of n things that are shared among `workers`. */
static inline int64_t share_of(int64_t n, int64_t worker, int64_t workers) {
    return n * worker / workers;
}

/* How many threads the loops of the calling thread may use; 1 until it is set. */
int xl_num_threads(void);

/* Set it, within [1, XL_MAX_THREADS], and return what it is now. */
XL_API int xl_set_threads(int count);

#endif
