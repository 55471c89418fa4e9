/* One step of Adam (Kingma and Ba 2015, arXiv:1412.6980) on gradients that are first scaled down
   together to a largest norm: two passes over memory, where torch has five. */
#include "export.h"
#include "parallel.h"
#include "vector.h"

#define PIECE 1024 /* numbers that a thread takes at once; squares that are summed in float */

typedef struct {
  int64_t size, first; /* first: pieces of the tensors before it */
  float *weight, *grad, *mean, *square, *step; /* step: one number, how many there were */
} adam_tensor;

/* in the order of OPTIONS in adam.py */
enum { LEARNING_RATE, BETA1, BETA2, EPS, LIMIT };

typedef struct {
  int64_t count, pieces; /* of all tensors */
  const adam_tensor *tensors;
  const double *options;
  double *squares; /* [pieces] scratch */
  double *factors; /* [count, 2] scratch: the step size, and what roots are multiplied with */
  float *norm;     /* of all gradients before they are scaled */
} adam_arguments;

typedef struct {
  const adam_arguments *a;
  float scale; /* of the gradients */
} adam_pass;

typedef struct {
  const adam_tensor *tensor;
  int64_t from, size;
} piece;

/* Tensors are of any size: threads share their pieces, not the tensors. */
static piece piece_at(const adam_arguments *a, int64_t index) {
  int64_t low = 0, high = a->count; /* the last one that begins at or before it */
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (a->tensors[middle].first <= index) low = middle;
    else high = middle;
  }
  const adam_tensor *t = a->tensors + low;
  const int64_t from = (index - t->first) * PIECE, rest = t->size - from;
  return (piece){t, from, rest < PIECE ? rest : PIECE};
}

static void sum_squares(int index, int worker, void *context) {
  (void)worker;
  const adam_arguments *a = ((const adam_pass *)context)->a;
  const piece p = piece_at(a, index);
  a->squares[index] = dot(p.size, p.tensor->grad + p.from, p.tensor->grad + p.from);
}

static void update(int index, int worker, void *context) {
  (void)worker;
  const adam_pass *f = context;
  const piece p = piece_at(f->a, index);
  const double *o = f->a->options, *factors = f->a->factors + 2 * (p.tensor - f->a->tensors);
  const vf rate = broadcast((float)factors[0]), root = broadcast((float)factors[1]);
  const vf keep1 = broadcast((float)o[BETA1]), take1 = broadcast((float)(1 - o[BETA1]));
  const vf keep2 = broadcast((float)o[BETA2]), take2 = broadcast((float)(1 - o[BETA2]));
  const vf scale = broadcast(f->scale), eps = broadcast((float)o[EPS]);
  float *grad = p.tensor->grad + p.from, *weight = p.tensor->weight + p.from;
  float *means = p.tensor->mean + p.from, *squares = p.tensor->square + p.from;
  FOR_VECTORS(i, p.size, left) {
    vf g = load_left(grad + i, left);
    if (f->scale != 1) {
      g *= scale;
      store_left(grad + i, g, left);
    }
    const vf mean = keep1 * load_left(means + i, left) + take1 * g;
    const vf square = keep2 * load_left(squares + i, left) + take2 * g * g;
    store_left(means + i, mean, left);
    store_left(squares + i, square, left);
    store_left(weight + i,
               load_left(weight + i, left) - rate * mean / (vsqrt(square) * root + eps), left);
  }
}

static void count_steps(const adam_arguments *a) {
  const double *o = a->options;
  for (int64_t e = 0; e < a->count; e++) {
    const double step = *a->tensors[e].step += 1;
    double *factors = a->factors + 2 * e;
    if (e > 0 && step == *a->tensors[e - 1].step) { /* as nearly always */
      factors[0] = factors[-2], factors[1] = factors[-1];
      continue;
    }
    factors[0] = o[LEARNING_RATE] / (1 - pow(o[BETA1], step));
    factors[1] = 1 / sqrt(1 - pow(o[BETA2], step));
  }
}

XL_API int xl_adam(const adam_arguments *a);

/* 1 if the norm is not finite: then nothing has changed */
int xl_adam(const adam_arguments *a) {
  adam_pass f = {.a = a};
  xl_parallel_for((int)a->pieces, sum_squares, &f);
  double sum = 0; /* of each tensor by itself, and of these */
  for (int64_t e = 0, i = 0; e < a->count; e++) {
    const int64_t end = e + 1 < a->count ? a->tensors[e + 1].first : a->pieces;
    double own = 0;
    for (; i < end; i++) own += a->squares[i];
    sum += own;
  }
  *a->norm = (float)sqrt(sum);
  if (!isfinite(*a->norm)) return 1;
  const double scale = a->options[LIMIT] / ((double)*a->norm + 1e-6); /* as torch has it */
  f.scale = scale < 1 ? (float)scale : 1;
  count_steps(a);
  xl_parallel_for((int)a->pieces, update, &f);
  return 0;
}
