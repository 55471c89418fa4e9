/* Linear layers in a row, each with its activation, over all rows: forward and backward.

   y = activation(x W^T + b). What the backward asks of an activation it finds in y. */
#include "arena.h"
#include "export.h"
#include "parallel.h"
#include "shared_gemm.h"

#define GROUPS 8 /* of rows, whose sums are added in order: the same for any number of threads */
#define FEW 8    /* outputs that are dot products of a row, not a product of tiles */

/* in the order of ACTIVATIONS in dense.py */
enum { NONE, TANH, RELU };

typedef struct {
  int64_t inputs, outputs, activation;
  const float *weight, *bias; /* [outputs, inputs], [outputs] or null */
  float *y;                   /* [R, outputs] */
  float *dweight, *dbias;     /* null: not wanted */
} dense_layer;

typedef struct {
  int64_t R, count, workers;
  const float *x;  /* [R, inputs of the first] */
  const float *dy; /* [R, outputs of the last] */
  float *dx;       /* null: not wanted */
  const dense_layer *layers;
  char *work;
} dense_arguments;

typedef struct {
  const dense_arguments *a;
  const dense_layer *layer;
  const float *x, *dy;
  float *dz, *sums;        /* [R, outputs], [GROUPS, outputs] */
  float *dz_of[2], *turned; /* [R, widest]; [inputs, outputs] of a layer of few inputs */
  char *scratch;
  int64_t scratch_each;
} dense_pass;

static int64_t cut(dense_pass *f, int backward, char *base) {
  const dense_arguments *a = f->a;
  int64_t widest = 0, turned = 0;
  for (int64_t e = 0; e < a->count; e++) {
    const dense_layer *l = a->layers + e;
    widest = l->inputs > widest ? l->inputs : widest;
    widest = l->outputs > widest ? l->outputs : widest;
    if (l->inputs < TILE_COLUMNS && l->outputs > turned) turned = l->outputs;
  }
  arena from = {base, 0}, scratch = {0, 0};
  take(&scratch, gemm_work(widest));
  f->scratch_each = scratch.used;
  f->scratch = take_bytes(&from, a->workers * f->scratch_each);
  if (!backward) return from.used;
  f->sums = take(&from, GROUPS * widest);
  f->turned = take(&from, TILE_COLUMNS * turned);
  for (int64_t e = 0; e < 2; e++) f->dz_of[e] = take(&from, a->R * widest);
  return from.used;
}

static void few_outputs(int index, int worker, void *context) {
  (void)worker;
  const dense_pass *f = context;
  const dense_layer *l = f->layer;
  const int64_t R = f->a->R;
  for (int64_t r = index * R / GROUPS; r < (index + 1) * R / GROUPS; r++)
    for (int64_t o = 0; o < l->outputs; o++)
      l->y[r * l->outputs + o] = (l->bias ? l->bias[o] : 0) +
                                 dot(l->inputs, f->x + r * l->inputs, l->weight + o * l->inputs);
}

static void activate_rows(int index, int worker, void *context) {
  (void)worker;
  const dense_pass *f = context;
  const dense_layer *l = f->layer;
  const int64_t from = index * f->a->R / GROUPS * l->outputs;
  const int64_t size = (index + 1) * f->a->R / GROUPS * l->outputs - from;
  float *y = l->y + from;
  FOR_VECTORS(i, size, left) {
    const vf x = load_left(y + i, left);
    store_left(y + i, l->activation == TANH ? vtanh(x) : vmax(broadcast(0), x), left);
  }
}

/* dz of a group of rows, and the sum of its rows, 64 at a time: of many their sum loses digits */
static void back_rows(int index, int worker, void *context) {
  (void)worker;
  const dense_pass *f = context;
  const dense_layer *l = f->layer;
  const int64_t N = l->outputs, end = (index + 1) * f->a->R / GROUPS;
  float *sums = f->sums + index * N;
  memset(sums, 0, (size_t)N * sizeof(float));
  for (int64_t r0 = index * f->a->R / GROUPS; r0 < end; r0 += 64)
    FOR_VECTORS(i, N, left) {
      vf sum = broadcast(0);
      for (int64_t r = r0; r < r0 + 64 && r < end; r++) {
        vf d = load_left(f->dy + r * N + i, left);
        if (l->activation != NONE) {
          const vf y = load_left(l->y + r * N + i, left);
          d = l->activation == TANH ? d * (broadcast(1) - y * y)
                                    : pick(MASK(y <= broadcast(0)), broadcast(0), d);
          store_left(f->dz + r * N + i, d, left);
        }
        sum += d;
      }
      store_left(sums + i, load_left(sums + i, left) + sum, left);
    }
}

static void weight_gradient(const dense_pass *f, const float *dz) {
  const dense_arguments *a = f->a;
  const dense_layer *l = f->layer;
  const int64_t N = l->outputs, K = l->inputs;
  if (K >= TILE_COLUMNS) {
    shared_gemm(a->workers, N, K, a->R, (matrix){dz, N, 1}, (matrix){f->x, K, 0}, l->dweight, K, 0,
                0, f->scratch, f->scratch_each);
    return;
  }
  shared_gemm(a->workers, K, N, a->R, (matrix){f->x, K, 1}, (matrix){dz, N, 0}, f->turned, N, 0, 0,
              f->scratch, f->scratch_each);
  transpose(K, N, f->turned, N, l->dweight, K);
}

XL_API int64_t xl_dense_forward_bytes(const dense_arguments *a);
XL_API int64_t xl_dense_backward_bytes(const dense_arguments *a);
XL_API int xl_dense_forward(const dense_arguments *a);
XL_API int xl_dense_backward(const dense_arguments *a);

int64_t xl_dense_forward_bytes(const dense_arguments *a) {
  dense_pass f = {.a = a};
  return cut(&f, 0, 0);
}

int64_t xl_dense_backward_bytes(const dense_arguments *a) {
  dense_pass f = {.a = a};
  return cut(&f, 1, 0);
}

int xl_dense_forward(const dense_arguments *a) {
  dense_pass f = {.a = a, .x = a->x};
  cut(&f, 0, a->work);
  for (int64_t e = 0; e < a->count; e++) {
    const dense_layer *l = f.layer = a->layers + e;
    if (l->outputs < FEW) xl_parallel_for(GROUPS, few_outputs, &f);
    else
      shared_gemm(a->workers, a->R, l->outputs, l->inputs, (matrix){f.x, l->inputs, 0},
                  (matrix){l->weight, l->inputs, 1}, l->y, l->outputs, l->bias, 0, f.scratch,
                  f.scratch_each);
    if (l->activation != NONE) xl_parallel_for(GROUPS, activate_rows, &f);
    f.x = l->y;
  }
  return 0;
}

int xl_dense_backward(const dense_arguments *a) {
  dense_pass f = {.a = a, .dy = a->dy};
  cut(&f, 1, a->work);
  for (int64_t e = a->count - 1; e >= 0; e--) {
    const dense_layer *l = f.layer = a->layers + e;
    f.x = e ? a->layers[e - 1].y : a->x;
    f.dz = f.dz_of[0];
    const float *dz = l->activation == NONE ? f.dy : f.dz;
    xl_parallel_for(GROUPS, back_rows, &f);
    for (int64_t i = 0; l->dbias && i < l->outputs; i++) {
      l->dbias[i] = 0;
      for (int64_t g = 0; g < GROUPS; g++) l->dbias[i] += f.sums[g * l->outputs + i];
    }
    if (l->dweight) weight_gradient(&f, dz);
    float *dx = e ? f.dz_of[1] : a->dx;
    if (!dx) break;
    shared_gemm(a->workers, a->R, l->inputs, l->outputs, (matrix){dz, l->outputs, 0},
                (matrix){l->weight, l->inputs, 0}, dx, l->inputs, 0, 0, f.scratch, f.scratch_each);
    f.dy = dx;
    f.dz_of[1] = f.dz_of[0], f.dz_of[0] = dx; /* read now, and may be overwritten with its dz */
  }
  return 0;
}
