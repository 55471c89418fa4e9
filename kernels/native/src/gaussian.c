/* Out of means and log standard deviations: log-density and entropy of independent normals, summed
   over the numbers of an action, and the gradients of these. */
#include "gaussian.h"

#include <math.h>

#define LOG_SQRT_2PI 0.91893853320467274178

/* in the order of OPTIONS in gaussian.py */
enum { SHIFT, LEAST, MOST };

typedef struct {
  float log_std, inverse; /* held between its limits, and 1 / std */
  int is_free;            /* it is within them: beyond, nothing changes */
} spread;

/* written so that a NaN stays one */
static spread spread_of(const gaussian_arguments *a, float given) {
  const float least = a->options[LEAST], most = a->options[MOST], x = given + a->options[SHIFT];
  spread s = {x < least ? least : x > most ? most : x, 0, x >= least && x <= most};
  s.inverse = expf(-s.log_std);
  return s;
}

int xl_gaussian_forward(const gaussian_arguments *a) {
  const int64_t n = a->numbers;
  for (int64_t r = 0; r < a->rows; r++) {
    const float *mean = a->params + 2 * n * r, *log_std = mean + n, *action = a->action + n * r;
    double log_prob = 0, entropy = 0;
    for (int64_t j = 0; j < n; j++) {
      const spread s = spread_of(a, log_std[j]);
      const double z = (double)(action[j] - mean[j]) * s.inverse;
      log_prob -= 0.5 * z * z + s.log_std + LOG_SQRT_2PI;
      entropy += s.log_std + 0.5 + LOG_SQRT_2PI;
    }
    a->log_prob[r] = (float)log_prob;
    a->entropy[r] = (float)entropy;
  }
  return 0;
}

int xl_gaussian_backward(const gaussian_arguments *a) {
  const int64_t n = a->numbers;
  for (int64_t r = 0; r < a->rows; r++) {
    const float *mean = a->params + 2 * n * r, *log_std = mean + n, *action = a->action + n * r;
    const float g = a->dlog_prob ? a->dlog_prob[r] : 0, h = a->dentropy ? a->dentropy[r] : 0;
    float *dmean = a->dparams + 2 * n * r, *dlog_std = dmean + n;
    for (int64_t j = 0; j < n; j++) {
      const spread s = spread_of(a, log_std[j]);
      const float z = (action[j] - mean[j]) * s.inverse;
      dmean[j] = g * z * s.inverse;
      dlog_std[j] = s.is_free ? g * (z * z - 1) + h : 0;
    }
  }
  return 0;
}
