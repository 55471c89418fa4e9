/* PPO's loss of choices, from a network's outputs to their gradients: its passes in a call. Python took
   longer between them than they did (measured). */
#include "arena.h"
#include "categorical.h"
#include "ppo_loss.h"

typedef struct {
  int64_t rows, choices, numbers, wants_barrier;
  const int64_t *counts; /* [numbers]: as in categorical.h, or null */
  const float *outputs;  /* [rows, choices] */
  const uint8_t *open;   /* [rows, choices]: the mask; null: all can be chosen */
  const int64_t *action; /* [rows, numbers] */
  const float *value, *old_log_prob, *old_value, *advantage, *target; /* [rows] each */
  const uint8_t *valid;  /* [rows] or null: all */
  const double *options; /* of the loss */
  float *doutputs, *dvalue, *parts;
  char *work;
} choice_loss_arguments;

typedef struct {
  float *logits, *log_p, *entropies;
  float *log_prob, *entropy, *mean, *dlog_prob, *dentropy, *dmean;
} choice_loss_work;

static choice_loss_work cut(const choice_loss_arguments *a, int64_t *bytes) {
  arena from = {a->work, 0};
  choice_loss_work w = {.log_p = take(&from, a->rows * a->choices)};
  w.entropies = take(&from, a->rows * a->numbers);
  if (a->open) w.logits = take(&from, a->rows * a->choices);
  float **each[] = {&w.log_prob, &w.entropy, &w.dlog_prob, &w.dentropy};
  for (int e = 0; e < 4; e++) *each[e] = take(&from, a->rows);
  if (a->wants_barrier) w.mean = take(&from, a->rows), w.dmean = take(&from, a->rows);
  *bytes = from.used;
  return w;
}

/* What cannot be chosen is below all that can; written so that a NaN shows. */
static void mask(const choice_loss_arguments *a, float *logits) {
  for (int64_t i = 0; i < a->rows * a->choices; i++) {
    const float x = a->outputs[i];
    logits[i] = !a->open[i] ? MASKED_LOGIT : x < LEAST_LOGIT ? LEAST_LOGIT : x;
  }
}

static void mask_backward(const choice_loss_arguments *a) {
  for (int64_t i = 0; i < a->rows * a->choices; i++)
    if (!a->open[i] || !(a->outputs[i] >= LEAST_LOGIT)) a->doutputs[i] = 0;
}

XL_API int64_t xl_choice_loss_bytes(const choice_loss_arguments *a);
XL_API int xl_choice_loss(const choice_loss_arguments *a);

int64_t xl_choice_loss_bytes(const choice_loss_arguments *a) {
  int64_t bytes;
  cut(a, &bytes);
  return bytes;
}

/* 1 if an action is none of the choices */
int xl_choice_loss(const choice_loss_arguments *a) {
  int64_t bytes;
  const choice_loss_work w = cut(a, &bytes);
  const categorical_arguments choices = {
      .rows = a->rows,
      .choices = a->choices,
      .numbers = a->numbers,
      .counts = a->counts,
      .logits = a->open ? w.logits : a->outputs,
      .action = a->action,
      .log_p = w.log_p,
      .entropies = w.entropies,
      .log_prob = w.log_prob,
      .entropy = w.entropy,
      .mean = w.mean,
      .dlog_prob = w.dlog_prob,
      .dentropy = w.dentropy,
      .dmean = w.dmean,
      .dlogits = a->doutputs,
  };
  const ppo_loss_arguments loss = {
      .count = a->rows,
      .log_prob = w.log_prob,
      .entropy = w.entropy,
      .value = a->value,
      .barrier = w.mean,
      .old_log_prob = a->old_log_prob,
      .old_value = a->old_value,
      .advantage = a->advantage,
      .target = a->target,
      .valid = a->valid,
      .options = a->options,
      .dlog_prob = w.dlog_prob,
      .dentropy = w.dentropy,
      .dvalue = a->dvalue,
      .dbarrier = w.dmean,
      .parts = a->parts,
  };
  if (a->open) mask(a, w.logits);
  if (xl_categorical_forward(&choices)) return 1;
  xl_ppo_loss(&loss);
  xl_categorical_backward(&choices);
  if (a->open) mask_backward(a);
  return 0;
}
