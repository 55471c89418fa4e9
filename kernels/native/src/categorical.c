/* Out of logits: log-probability and entropy of choices, the mean log-probability of all that can
   be chosen, and the gradients of these. */
#include "categorical.h"

#include <math.h>

/* masked, as policy/actions/categorical.py does it: none of the choices */
#define MASKED_BELOW -5.5e29f

/* written so that a NaN is a choice, and shows */
static int is_masked(float logit) { return logit <= MASKED_BELOW; }

static float mean_of(int64_t n, const float *logits, const float *log_p) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t j = 0; j < n; j++)
    if (!is_masked(logits[j])) sum += log_p[j], count++;
  return count ? (float)(sum / (double)count) : 0;
}

static void mean_backward(int64_t n, const float *logits, const float *log_p, float g, float *dx) {
  int64_t count = 0;
  for (int64_t j = 0; j < n; j++) count += !is_masked(logits[j]);
  if (!count) return;
  for (int64_t j = 0; j < n; j++)
    dx[j] += g * ((is_masked(logits[j]) ? 0 : 1.0f / (float)count) - expf(log_p[j]));
}

int xl_categorical_forward(const categorical_arguments *a) {
  const int64_t n = a->choices;
  for (int64_t r = 0; r < a->rows; r++) {
    const float *x = a->logits + r * n;
    float *log_p = a->log_p + r * n, largest = x[0];
    double sum = 0, entropy = 0;
    if (a->action[r] < 0 || a->action[r] >= n) return 1;
    for (int64_t j = 1; j < n; j++) largest = x[j] > largest ? x[j] : largest;
    for (int64_t j = 0; j < n; j++) sum += expf(x[j] - largest);
    const float log_sum = (float)log(sum);
    for (int64_t j = 0; j < n; j++) {
      log_p[j] = x[j] - largest - log_sum;
      entropy -= (double)expf(log_p[j]) * log_p[j];
    }
    a->log_prob[r] = log_p[a->action[r]];
    a->entropy[r] = (float)entropy;
    if (a->mean) a->mean[r] = mean_of(n, x, log_p);
  }
  return 0;
}

int xl_categorical_backward(const categorical_arguments *a) {
  const int64_t n = a->choices;
  for (int64_t r = 0; r < a->rows; r++) {
    const float g = a->dlog_prob ? a->dlog_prob[r] : 0, h = a->dentropy ? a->dentropy[r] : 0;
    const float *log_p = a->log_p + r * n;
    for (int64_t j = 0; j < n; j++) {
      const float p = expf(log_p[j]);
      a->dlogits[r * n + j] = -p * (g + h * (log_p[j] + a->entropy[r]));
    }
    a->dlogits[r * n + a->action[r]] += g;
    if (a->dmean) mean_backward(n, a->logits + r * n, log_p, a->dmean[r], a->dlogits + r * n);
  }
  return 0;
}
