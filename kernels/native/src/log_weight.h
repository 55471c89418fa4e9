/* Weights of the mLSTM from their logarithms, which are 0 at most. */
#pragma once
#include "vector.h"

#define LEAST_LOG_FORGET -1e5f /* a log forget gate below this forgets all, as a reset does */
#define LEAST_LOG_WEIGHT -64.47f /* exp of it is 1e-28: no sum can feel less */

INLINE vf weight(vf log_weight) {
  const vi tiny = MASK(log_weight < broadcast(LEAST_LOG_WEIGHT));
  return keep_where(~tiny, vexp(vmin(broadcast(0), log_weight)));
}
