/* The weights of one chunk of one head: logarithms in double, their differences in float.

   As kernels/mlstm/gates.py has it. In a chunk b is the running sum of log forget gates, c = i - b,
   and u = m - b the running maximum of c, so that step j weighs exp(c_j - u_i) in row i. A start (a
   reset, or a forget gate that forgets all) begins a segment: rows see the columns of their own. */
#pragma once
#include "log_weight.h"
#include "tiles.h"

#define CHUNK 32
#define NOTHING (-1e300)       /* m where nothing was written: -inf, but differences are numbers */
#define FRESH_BOUND 60.9         /* what a fresh state weighs, for its gradient: e^60.9 at most */

typedef struct {
  float within[CHUNK * CHUNK]; /* of step j in row i, K^-1/2 included; 0 outside i's segment */
  float scores[CHUNK * CHUNK]; /* within times q k^T */
  float carried[CHUNK];        /* of the state before the chunk in row i, K^-1/2 included */
  float last[CHUNK];           /* of step j in the state behind the chunk */
  float floor[CHUNK];          /* the least denominator, exp(-m) */
  float sums[CHUNK];           /* q . n, scaled */
  float decay;                 /* of the state before the chunk in the state behind it */
  int32_t carries;             /* how many rows, the first ones, hear the state before the chunk */
  int32_t kept;                /* the first step that the state behind the chunk holds */
  int32_t unused[13];
} chunk_record;

/* What runs through the chunks of one head of one sequence. */
typedef struct {
  double m;      /* the stabiliser, NOTHING where nothing was written */
  int32_t given; /* whether the first state, which came from outside, has not been forgotten */
  int32_t best;  /* the step whose input gate m came from; -1: the first m; -2: none */
  int32_t broken; /* a gate was no number, or infinite where that means no weight */
} gate_run;

INLINE int starts_anew(const uint8_t *reset, int64_t t, float f) {
  return (reset && reset[t]) || f < LEAST_LOG_FORGET; /* log sigmoid(f) is f that far below 0 */
}

/* One chunk of n steps, the first of them step t0 of the sequence; i and f have `ld` floats from
   step to step, reset may be null. */
INLINE void chunk_gates(int64_t n, int64_t t0, const float *i, const float *f, int64_t ld,
                        const uint8_t *reset, int exponential, float scale, gate_run *run,
                        chunk_record *to) {
  float log_f[CHUNK] ALIGNED = {0};
  for (int64_t j = 0; j < n; j++) log_f[j] = f[j * ld];
  if (!exponential)
    for (int64_t j = 0; j < n; j += VW) store(log_f + j, vlog_sigmoid(load(log_f + j)));

  double c[CHUNK], u[CHUNK], b = 0, top = run->m;
  const double m_in = run->m;
  const int fresh = m_in == NOTHING, heard = !fresh || run->given; /* by rows, or by a gradient */
  float m[CHUNK] ALIGNED = {0};
  int32_t segment[CHUNK], start = -1; /* the first row that a row sees; -1: the carried state too */
  int broken = 0;
  for (int64_t j = 0; j < n; j++) {
    const float input = i[j * ld];
    broken |= !(input < INFINITY) | !(log_f[j] < INFINITY);
    /* b begins at 0 there too: no bit of an episode hangs on the one before */
    if (starts_anew(reset, j, f[j * ld])) top = NOTHING, start = (int32_t)j, run->best = -2, b = 0;
    else b += log_f[j];
    c[j] = input - b;
    if (c[j] > top) top = c[j], run->best = (int32_t)(t0 + j); /* on a tie the oldest keeps it */
    segment[j] = start;
    /* far below 0 h is 0 whatever m is; a gradient of a fresh state, exp(b - m) / exp(-m), not */
    u[j] = top < -FRESH_BOUND - b ? -FRESH_BOUND - b : top;
    m[j] = (float)(u[j] + b);
  }
  const double m_out = top == NOTHING ? NOTHING : top + b;
  run->m = m_out;
  run->given &= start < 0;
  run->broken |= broken;

  /* what a fresh state weighs is relative to its m of 0 */
  const double before = fresh ? 0 : m_in, after = m_out == NOTHING ? 0 : m_out;
  const double bound = fresh ? FRESH_BOUND : 0;
  to->carries = 0, to->kept = start < 0 ? 0 : start;
  for (int64_t j = 0; heard && j < n && segment[j] < 0; j++) to->carries++;
  float high[CHUNK] ALIGNED, low[CHUNK] ALIGNED, row_high[CHUNK], row_low[CHUNK];
  for (int64_t j = 0; j < CHUNK; j++) {
    if (j >= n) {
      high[j] = -3e38f, low[j] = 0, to->carried[j] = to->last[j] = -1e30f;
      continue;
    }
    high[j] = c[j] > -3e38 ? (float)c[j] : -3e38f;
    low[j] = c[j] > -3e38 ? (float)(c[j] - high[j]) : 0;
    row_high[j] = (float)u[j];
    row_low[j] = (float)(u[j] - row_high[j]);
    const double carried = before - u[j] < bound ? before - u[j] : bound;
    to->carried[j] = j < to->carries ? (float)carried : -1e30f;
    to->last[j] = j >= start && top != NOTHING ? (float)(c[j] - top) : -1e30f;
  }
  const double decay = before + b - after;
  const int kept = start < 0 && heard && decay > LEAST_LOG_WEIGHT;
  to->decay = kept ? expf((float)(decay < bound ? decay : bound)) : 0;
  const vf scales = broadcast(scale);
  for (int64_t j = 0; j < n; j += VW) {
    const vf carried = load(to->carried + j);
    const vi tiny = (vi)(carried < broadcast(LEAST_LOG_WEIGHT));
    store(to->carried + j, keep_where(~tiny, vexp(carried)) * scales);
    store(to->last + j, weight(load(to->last + j)));
    const vf bounded = vmin(broadcast(EXP_BOUND), vmax(broadcast(-EXP_BOUND), load(m + j)));
    store(to->floor + j, vexp(-bounded));
  }
  const vi numbers = LANE_NUMBERS;
  for (int64_t row = 0; row < n; row++) {
    float *within = to->within + row * CHUNK;
    const vi from = broadcast_int(segment[row]), till = broadcast_int((int32_t)row);
    for (int64_t j = 0; j < ROUND_UP(row + 1, TRIANGLE_SIDE); j += VW) {
      const vf log_weight = (load(high + j) - broadcast(row_high[row])) +
                            (load(low + j) - broadcast(row_low[row]));
      const vi at = numbers + broadcast_int((int32_t)j);
      const vi seen = (vi)(at >= from) & (vi)(at <= till);
      store(within + j, keep_where(seen, weight(log_weight) * scales));
    }
  }
}
