/* Layer normalisation over all rows, forward and backward: what stands behind the blocks. */
#include "arena.h"
#include "export.h"
#include "layer_norm.h"
#include "parallel.h"

#define GROUPS 8 /* of rows, whose sums are added in order: the same for any number of threads */

typedef struct {
  int64_t R, D, workers;
  const float *x, *weight;
  float *y;        /* [R, D] */
  float *moments;  /* [R, 2]: mean, 1 / deviation */
  const float *dy;
  float *dx, *dweight;
  char *work;
} norm_arguments;

static void norm_rows(int index, int worker, void *context) {
  (void)worker;
  const norm_arguments *a = context;
  for (int64_t r = index * a->R / GROUPS; r < (index + 1) * a->R / GROUPS; r++) {
    float *m = a->moments + 2 * r;
    row_moments(a->D, a->x + r * a->D, m, m + 1);
    normalise_row(a->D, a->x + r * a->D, a->weight, m[0], m[1], a->y + r * a->D);
  }
}

typedef struct {
  const norm_arguments *a;
  float *sums[GROUPS]; /* [D] each */
} norm_pass;

static int64_t cut(norm_pass *f, char *base) {
  arena from = {base, 0};
  for (int64_t g = 0; g < GROUPS; g++) f->sums[g] = take(&from, f->a->D);
  return from.used;
}

static void back_rows(int index, int worker, void *context) {
  (void)worker;
  const norm_pass *f = context;
  const norm_arguments *a = f->a;
  float *sums = f->sums[index];
  memset(sums, 0, a->D * sizeof(float));
  for (int64_t r = index * a->R / GROUPS; r < (index + 1) * a->R / GROUPS; r++) {
    const float *m = a->moments + 2 * r;
    float *dx = a->dx + r * a->D;
    memset(dx, 0, a->D * sizeof(float));
    normalise_row_backward(a->D, a->x + r * a->D, a->weight, m[0], m[1], a->dy + r * a->D, dx, sums);
  }
}

XL_API int64_t xl_norm_backward_bytes(const norm_arguments *a);
XL_API int xl_norm_forward(const norm_arguments *a);
XL_API int xl_norm_backward(const norm_arguments *a);

int64_t xl_norm_backward_bytes(const norm_arguments *a) {
  norm_pass f = {.a = a};
  return cut(&f, 0);
}

int xl_norm_forward(const norm_arguments *a) {
  xl_parallel_for(GROUPS, norm_rows, (void *)a);
  return 0;
}

int xl_norm_backward(const norm_arguments *a) {
  norm_pass f = {.a = a};
  cut(&f, a->work);
  xl_parallel_for(GROUPS, back_rows, &f);
  for (int64_t i = 0; i < a->D; i++) {
    a->dweight[i] = 0;
    for (int64_t g = 0; g < GROUPS; g++) a->dweight[i] += f.sums[g][i];
  }
  return 0;
}
