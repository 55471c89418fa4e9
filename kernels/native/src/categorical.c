/* Out of logits: log-probability and entropy of choices, the mean log-probability of all that can
   be chosen, and the gradients of these. Of several numbers side by side they are sums. */
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

static float log_prob_of(int64_t n, const float *x, int64_t action, float *log_p, float *entropy) {
  float largest = x[0];
  double sum = 0, mixed = 0;
  for (int64_t j = 1; j < n; j++) largest = x[j] > largest ? x[j] : largest;
  for (int64_t j = 0; j < n; j++) sum += expf(x[j] - largest);
  const float log_sum = (float)log(sum);
  for (int64_t j = 0; j < n; j++) {
    log_p[j] = x[j] - largest - log_sum;
    mixed -= (double)expf(log_p[j]) * log_p[j];
  }
  *entropy = (float)mixed;
  return log_p[action];
}

static int64_t count_of(const categorical_arguments *a, int64_t k) {
  return a->counts ? a->counts[k] : a->choices;
}

int xl_categorical_forward(const categorical_arguments *a) {
  for (int64_t r = 0; r < a->rows; r++) {
    const float *x = a->logits + r * a->choices;
    float *log_p = a->log_p + r * a->choices, *each = a->entropies + r * a->numbers;
    double log_prob = 0, entropy = 0, mean = 0;
    for (int64_t k = 0; k < a->numbers; k++) {
      const int64_t n = count_of(a, k), action = a->action[r * a->numbers + k];
      if (action < 0 || action >= n) return 1;
      log_prob += log_prob_of(n, x, action, log_p, each + k);
      entropy += each[k];
      if (a->mean) mean += mean_of(n, x, log_p);
      x += n, log_p += n;
    }
    a->log_prob[r] = (float)log_prob;
    a->entropy[r] = (float)entropy;
    if (a->mean) a->mean[r] = (float)mean;
  }
  return 0;
}

int xl_categorical_backward(const categorical_arguments *a) {
  for (int64_t r = 0; r < a->rows; r++) {
    const float g = a->dlog_prob ? a->dlog_prob[r] : 0, h = a->dentropy ? a->dentropy[r] : 0;
    int64_t first = r * a->choices;
    for (int64_t k = 0; k < a->numbers; k++) {
      const int64_t n = count_of(a, k), number = r * a->numbers + k;
      const float *log_p = a->log_p + first;
      float *dx = a->dlogits + first;
      for (int64_t j = 0; j < n; j++)
        dx[j] = -expf(log_p[j]) * (g + h * (log_p[j] + a->entropies[number]));
      dx[a->action[number]] += g;
      if (a->dmean) mean_backward(n, a->logits + first, log_p, a->dmean[r], dx);
      first += n;
    }
  }
  return 0;
}
