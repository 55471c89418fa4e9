/* PPO's loss of independent normals, from what a network says of them to the gradients of that, in a
   call. */
#include <string.h>

#include "arena.h"
#include "gaussian.h"
#include "ppo_loss.h"

typedef struct {
  int64_t rows, numbers;
  const float *outputs; /* [rows, numbers] means; without `log_std` [rows, 2 numbers], it behind */
  const float *log_std; /* [numbers] of all rows, or null */
  const float *action;  /* [rows, numbers] */
  const float *spread;  /* options of the normals */
  const float *value, *old_log_prob, *old_value, *advantage, *target; /* [rows] each */
  const uint8_t *valid;  /* [rows] or null: all */
  const double *options; /* of the loss */
  float *doutputs;       /* as `outputs` */
  float *dparams;        /* [rows, 2 numbers]: with `log_std` alone */
  float *dvalue, *parts;
  char *work;
} number_loss_arguments;

typedef struct {
  float *params, *log_prob, *entropy, *dlog_prob, *dentropy;
} number_loss_work;

static number_loss_work cut(const number_loss_arguments *a, int64_t *bytes) {
  arena from = {a->work, 0};
  number_loss_work w = {.params = take(&from, 2 * a->rows * a->numbers)};
  float **each[] = {&w.log_prob, &w.entropy, &w.dlog_prob, &w.dentropy};
  for (int e = 0; e < 4; e++) *each[e] = take(&from, a->rows);
  *bytes = from.used;
  return w;
}

XL_API int64_t xl_number_loss_bytes(const number_loss_arguments *a);
XL_API int xl_number_loss(const number_loss_arguments *a);

int64_t xl_number_loss_bytes(const number_loss_arguments *a) {
  int64_t bytes;
  cut(a, &bytes);
  return bytes;
}

int xl_number_loss(const number_loss_arguments *a) {
  int64_t bytes;
  const number_loss_work w = cut(a, &bytes);
  const int64_t n = a->numbers;
  const size_t row = (size_t)n * sizeof(float);
  for (int64_t r = 0; a->log_std && r < a->rows; r++) {
    memcpy(w.params + 2 * n * r, a->outputs + n * r, row);
    memcpy(w.params + 2 * n * r + n, a->log_std, row);
  }
  const gaussian_arguments normals = {
      .rows = a->rows,
      .numbers = n,
      .params = a->log_std ? w.params : a->outputs,
      .action = a->action,
      .options = a->spread,
      .log_prob = w.log_prob,
      .entropy = w.entropy,
      .dlog_prob = w.dlog_prob,
      .dentropy = w.dentropy,
      .dparams = a->log_std ? a->dparams : a->doutputs,
  };
  const ppo_loss_arguments loss = {
      .count = a->rows,
      .log_prob = w.log_prob,
      .entropy = w.entropy,
      .value = a->value,
      .old_log_prob = a->old_log_prob,
      .old_value = a->old_value,
      .advantage = a->advantage,
      .target = a->target,
      .valid = a->valid,
      .options = a->options,
      .dlog_prob = w.dlog_prob,
      .dentropy = w.dentropy,
      .dvalue = a->dvalue,
      .parts = a->parts,
  };
  xl_gaussian_forward(&normals);
  xl_ppo_loss(&loss);
  xl_gaussian_backward(&normals);
  for (int64_t r = 0; a->log_std && r < a->rows; r++)
    memcpy(a->doutputs + n * r, a->dparams + 2 * n * r, row);
  return 0;
}
