/* One step of a whole policy, part after part, in one call: the normaliser of observations, linear
   layers with their activations, blocks, norms. Each part reads what an earlier one wrote; Python lays out the buffers. */
#include "activation.h"
#include "export.h"
#include "joined.h"
#include "layer_norm.h"
#include "matvec.h"
#include "mlstm_block_step.h"
#include "slstm_block.h"

XL_API int xl_mlstm_block_step(const mlstm_step_arguments *a);
XL_API int xl_joined_forward(const joined_arguments *a);

enum { AT_ONCE = 16 }; /* rows that rows_times takes */

/* in the order of ACTIVATIONS in policy_step.py */
enum { NONE, TANH, RELU_UNIT, SILU };

typedef struct {
  int64_t rows, width, is_wide, features;
  const void *x, *center, *scale; /* [rows, width], [width]: double if wide; null: a cast alone */
  const double *clip;
  /* of the action before [rows, features], 0 where the episode has not started [rows], or begins */
  const float *action, *started;
  const uint8_t *reset; /* [rows] or null */
  float *y; /* [rows, width + features] */
} normalise_arguments;

typedef struct {
  int64_t rows, inputs, outputs, activation;
  const float *x, *weight, *bias; /* [rows, inputs], [outputs, inputs], [outputs] or null */
  float *y, *work;                /* [rows, outputs]; as rows_times needs it */
} linear_arguments;

typedef struct {
  int64_t rows, width;
  const float *x, *weight;
  float *y; /* [rows, width] */
} norm_arguments;

/* in the order of PARTS in policy_step.py */
enum { NORMALISE, LINEAR, NORM, MLSTM, SLSTM, JOINED };

typedef struct {
  int64_t kind;
  const void *arguments;
} part;

typedef struct {
  int64_t count, workers; /* workers: most threads, those of the parts */
  const part *parts;
} policy_step_arguments;

/* What torch does, to the bit: the mean goes first, NaN passes the clip. */
#define NORMALISE_AS(number)                                                                       \
  do {                                                                                             \
    const number *x = a->x, *center = a->center, *scale = a->scale;                                \
    const number most = (number)*a->clip;                                                          \
    for (int64_t r = 0; r < a->rows; r++)                                                          \
      for (int64_t i = 0; i < a->width; i++) {                                                     \
        number y = x[r * a->width + i];                                                            \
        if (center) {                                                                              \
          y = (y - center[i]) * scale[i];                                                          \
          y = y < -most ? -most : y > most ? most : y;                                             \
        }                                                                                          \
        a->y[r * (a->width + a->features) + i] = (float)y;                                         \
      }                                                                                            \
  } while (0)

static void run_normalise(const normalise_arguments *a) {
  if (a->is_wide)
    NORMALISE_AS(double);
  else
    NORMALISE_AS(float);
  for (int64_t r = 0; r < a->rows; r++) {
    const int follows = a->features && a->started[r] != 0 && !(a->reset && a->reset[r]);
    float *y = a->y + r * (a->width + a->features) + a->width;
    for (int64_t i = 0; i < a->features; i++) y[i] = follows ? a->action[r * a->features + i] : 0;
  }
}

static void activate_all(int64_t kind, int64_t n, float *y) {
  vf slope;
  FOR_VECTORS(i, n, left) {
    const vf x = load_left(y + i, left);
    store_left(y + i,
               kind == TANH   ? vtanh(x)
               : kind == SILU ? activate(SWISH, x, &slope)
                              : activate(RELU, x, &slope),
               left);
  }
}

static void run_linear(const linear_arguments *a) {
  for (int64_t r = 0; r < a->rows; r += AT_ONCE) {
    const int64_t left = a->rows - r, n = left < AT_ONCE ? left : AT_ONCE;
    rows_times(n, a->outputs, a->inputs, a->x + r * a->inputs, a->inputs, a->weight, a->bias,
               a->y + r * a->outputs, a->outputs, a->work);
  }
  if (a->activation != NONE) activate_all(a->activation, a->rows * a->outputs, a->y);
}

static void run_norm(const norm_arguments *a) {
  for (int64_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->width;
    float mean, inverse;
    row_moments(a->width, x, &mean, &inverse);
    normalise_row(a->width, x, a->weight, mean, inverse, a->y + r * a->width);
  }
}

XL_API int64_t xl_linear_floats(const linear_arguments *a);
XL_API int xl_policy_step(const policy_step_arguments *a);

/* floats of work that a linear layer needs */
int64_t xl_linear_floats(const linear_arguments *a) { return rows_times_work(a->outputs, a->inputs); }

int xl_policy_step(const policy_step_arguments *a) {
  for (int64_t i = 0; i < a->count; i++) {
    const void *arguments = a->parts[i].arguments;
    int status = 0;
    switch (a->parts[i].kind) {
      case NORMALISE: run_normalise(arguments); break;
      case LINEAR: run_linear(arguments); break;
      case NORM: run_norm(arguments); break;
      case MLSTM: status = xl_mlstm_block_step(arguments); break;
      case JOINED: status = xl_joined_forward(arguments); break;
      default: status = xl_slstm_block_forward(arguments);
    }
    if (status) return status;
  }
  return 0;
}
