/* Bodies with which test_parallel.py looks at the pool from outside. */
#include <unistd.h>

#include "parallel.h"

typedef struct {
    int *worker;      /* of each index */
    float *denormal;  /* a product that is denormal */
    float factor;
    int microseconds; /* that an index takes */
} probe_t;

static void probe(int index, int worker, void *context) {
    probe_t *p = context;
    if (p->microseconds) usleep(p->microseconds);
    p->worker[index] += 1000 + worker;
    volatile float small = 1e-30f;
    p->denormal[index] = small * p->factor;
}

XL_API void run_probe(int n, int *worker, float *denormal, float factor, int microseconds) {
    probe_t p = {worker, denormal, factor, microseconds};
    xl_parallel_for(n, probe, &p);
}

typedef struct {
    int *worker;
    int inner;
} nested_t;

static void note(int index, int worker, void *context) { ((int *)context)[index] = worker; }

static void nest(int index, int worker, void *context) {
    (void)worker;
    nested_t *n = context;
    xl_parallel_for(n->inner, note, n->worker + index * n->inner);
}

XL_API void run_nested(int outer, int inner, int *worker) {
    nested_t n = {worker, inner};
    xl_parallel_for(outer, nest, &n);
}

XL_API int threads_now(void);
int threads_now(void) { return xl_num_threads(); }

/* a call of a program: says on how many threads it runs */
XL_API int note_threads(int *threads);
int note_threads(int *threads) {
    *threads = xl_num_threads();
    return 0;
}
