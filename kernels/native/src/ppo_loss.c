/* PPO's clipped loss over the valid steps of a minibatch, and its gradients, in two passes.

   With r = exp(log_prob - old_log_prob) and normalised advantages A:
   loss = -mean(min(r A, clip(r) A)) + value_coef * mean(error^2) / 2 - entropy_coef * mean(entropy)
          - barrier_coef * mean(barrier) */
#include "ppo_loss.h"

#include <math.h>

typedef struct {
  double mean, divisor, share; /* of the advantages; one step's share in a mean */
} ppo_scale;

static ppo_scale scale_of(const ppo_loss_arguments *a) {
  const double *o = a->options;
  double sum = 0, squares = 0;
  int64_t n = 0;
  for (int64_t i = 0; i < a->count; i++)
    if (!a->valid || a->valid[i]) sum += a->advantage[i], n++;
  ppo_scale s = {0, 1, n ? 1.0 / (double)n : 1.0};
  if (o[NORMALIZE] == 0 || n < 2) return s;
  s.mean = sum / (double)n;
  for (int64_t i = 0; i < a->count; i++) {
    const double d = a->advantage[i] - s.mean;
    if (!a->valid || a->valid[i]) squares += d * d;
  }
  const double deviation = sqrt(squares / (double)(n - 1));
  s.divisor = (deviation < o[LEAST] ? o[LEAST] : deviation) + 1e-8;
  return s;
}

static float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

/* The policy's part of a step: what it adds to the loss, and how that changes with log_prob. */
static void policy_step(const ppo_loss_arguments *a, const ppo_scale *s, int64_t i, double *sums) {
  const float clip = (float)a->options[CLIP], low = 1 - clip, high = 1 + clip;
  const float advantage = (float)((a->advantage[i] - s->mean) / s->divisor);
  const float log_ratio = a->log_prob[i] - a->old_log_prob[i], ratio = expf(log_ratio);
  const float clipped = clamp(ratio, low, high);
  const float free = ratio * advantage, bound = clipped * advantage;
  /* where both are the same, both or neither depend on the ratio; a NaN is neither way less */
  sums[POLICY] -= free < bound ? free : bound;
  sums[APPROX_KL] += ratio - 1.0f - log_ratio; /* "k3" (Schulman 2020, "Approximating KL") */
  sums[CLIP_FRACTION] += clipped != ratio;
  const int counts = clipped == ratio || free < bound;
  /* a ratio that is not finite makes NaN of the gradient, as in torch: no step is taken */
  a->dlog_prob[i] = (counts ? (float)(-s->share * free) : 0) + 0 * ratio;
}

/* The critic's: half the squared error, or the larger of that and the error of a bounded change. */
static void value_step(const ppo_loss_arguments *a, const ppo_scale *s, int64_t i, double *sums) {
  const float range = (float)a->options[VALUE_CLIP], error = a->value[i] - a->target[i];
  double square = error * error, slope = error;
  if (range >= 0) {
    const float change = a->value[i] - a->old_value[i], bound = clamp(change, -range, range);
    const float near = a->old_value[i] + bound - a->target[i];
    const double other = near * near, other_slope = bound == change ? near : 0;
    if (other > square) square = other, slope = other_slope;
    else if (other == square) slope = 0.5 * (slope + other_slope);
  }
  sums[VALUE] += 0.5 * square;
  a->dvalue[i] = (float)(s->share * a->options[VALUE_COEF] * slope);
}

int xl_ppo_loss(const ppo_loss_arguments *a) {
  const double *o = a->options;
  const ppo_scale s = scale_of(a);
  double sums[NUM_PARTS] = {0};
  for (int64_t i = 0; i < a->count; i++) {
    if (a->valid && !a->valid[i]) {
      a->dlog_prob[i] = a->dentropy[i] = a->dvalue[i] = 0;
      if (a->barrier) a->dbarrier[i] = 0;
      continue;
    }
    policy_step(a, &s, i, sums);
    value_step(a, &s, i, sums);
    sums[ENTROPY] += a->entropy[i];
    a->dentropy[i] = (float)(-s.share * o[ENTROPY_COEF]);
    if (a->barrier) {
      sums[BARRIER] += a->barrier[i];
      a->dbarrier[i] = (float)(-s.share * o[BARRIER_COEF]);
    }
  }
  for (int e = POLICY; e < NUM_PARTS; e++) a->parts[e] = (float)(sums[e] *= s.share);
  a->parts[LOSS] = (float)(sums[POLICY] + o[VALUE_COEF] * sums[VALUE] -
                           o[ENTROPY_COEF] * sums[ENTROPY] - o[BARRIER_COEF] * sums[BARRIER]);
  return 0;
}
