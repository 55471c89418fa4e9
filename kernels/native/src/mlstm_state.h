/* The state of one head on its way in and out, and what its gradient means for the gates.

   Inside, C is [Kp, Vp] and n [Kp]: K and V in whole vectors, with zeros behind them. */
#pragma once
#include "mlstm_chunk.h"

typedef struct {
  int64_t K, V, Kp, Vp;
} head_size;

INLINE head_size head_size_of(int64_t K, int64_t V) {
  return (head_size){K, V, ROUND_UP(K, VW), ROUND_UP(V, VW)};
}

/* null C and n are zeros */
INLINE void state_in(head_size z, const float *C, const float *n, float *to_C, float *to_n) {
  if (z.Kp > z.K || z.Vp > z.V || !C) memset(to_C, 0, (size_t)(z.Kp * z.Vp) * sizeof(float));
  for (int64_t k = 0; C && k < z.K; k++)
    memcpy(to_C + k * z.Vp, C + k * z.V, (size_t)z.V * sizeof(float));
  if (z.Kp > z.K || !n) memset(to_n, 0, (size_t)z.Kp * sizeof(float));
  if (n) memcpy(to_n, n, (size_t)z.K * sizeof(float));
}

INLINE void state_out(head_size z, const float *C, const float *n, float *to_C, float *to_n) {
  for (int64_t k = 0; k < z.K; k++)
    memcpy(to_C + k * z.V, C + k * z.Vp, (size_t)z.V * sizeof(float));
  memcpy(to_n, n, (size_t)z.K * sizeof(float));
}

/* m of the first state: of a fresh one, which is all 0, m has no say */
INLINE gate_run begin_gates(int64_t K, int64_t V, const float *C, const float *n, const float *m) {
  gate_run run = {NOTHING, m != 0, -2, 0};
  if (!m) return run;
  int fresh = *m == 0;
  for (int64_t e = 0; fresh && e < K; e++) fresh = n[e] == 0;
  for (int64_t e = 0; fresh && e < K * V; e++) fresh = C[e] == 0;
  if (!fresh) run.m = *m, run.best = -1;
  run.broken = !isfinite(*m) || !all_finite(K, n) || !all_finite(K * V, C);
  return run;
}

/* What runs backward through the chunks of a head. */
typedef struct {
  double later;  /* sum over later steps of the episode of q . dq - k . dk, + <C, dC> + <n, dn> */
  float rest;    /* of the gradient of m, on its way to what the last m came from */
  int32_t best;  /* which is this step, or -1: the first m */
  int32_t live;  /* whether dC and dn hold anything */
} gate_run_back;

/* From the gradients of the last state, null for zero, and that state itself. C and n are exp(-m)
   times something without m: dm - <C, dC> - <n, dn> is left for m itself. */
INLINE gate_run_back begin_gates_back(head_size z, const gate_run *run, const float *C, const float *n,
                                      const float *given_C, const float *given_n,
                                      const float *given_m, float *dC, float *dn) {
  gate_run_back back = {0, 0, run->best, given_C || given_n};
  if (back.live) {
    state_in(z, given_C, given_n, dC, dn);
    for (int64_t k = 0; k < z.K; k++) back.later += dot(z.V, dC + k * z.Vp, C + k * z.Vp);
    back.later += dot(z.K, dn, n);
  }
  if (run->best != -2) back.rest = (float)((given_m ? *given_m : 0) - back.later);
  return back;
}

/* di and df of one chunk, `ldd` floats from step to step; f has `ld`. reset may be null. */
INLINE void chunk_gates_back(int64_t n, int64_t t0, const float *f, int64_t ld, const uint8_t *reset,
                             int exponential, const float *qdq, const float *kdk,
                             gate_run_back *back, float *di, float *df, int64_t ldd) {
  float slope[CHUNK] ALIGNED = {0};
  for (int64_t j = 0; j < n; j++) slope[j] = f[j * ld];
  for (int64_t j = 0; j < n; j += VW)
    store(slope + j, exponential ? broadcast(1) : vsigmoid(-load(slope + j)));
  for (int64_t j = n - 1; j >= 0; j--) {
    back->later += (double)qdq[j] - (double)kdk[j];
    di[j * ldd] = kdk[j];
    if (t0 + j == back->best) di[j * ldd] += back->rest, back->rest = 0;
    const int start = starts_anew(reset, j, f[j * ld]); /* nothing reaches behind it */
    if (start) back->later = 0;
    df[j * ldd] = start ? 0 : (float)(back->later + back->rest) * slope[j];
  }
}

/* The gradients of the first state C, n, m. */
INLINE void end_gates_back(head_size z, const gate_run_back *back, const float *C, const float *n,
                           const float *dC, const float *dn, float *to_C, float *to_n, float *to_m) {
  double along = 0;
  if (back->live) {
    state_out(z, dC, dn, to_C, to_n);
    for (int64_t k = 0; k < z.K; k++) along += dot(z.V, to_C + k * z.V, C + k * z.V);
    along += dot(z.K, to_n, n);
  } else {
    memset(to_C, 0, (size_t)(z.K * z.V) * sizeof(float));
    memset(to_n, 0, (size_t)z.K * sizeof(float));
  }
  *to_m = (float)(along + (back->best == -1 ? back->rest : 0));
}

/* A part of a head that does not lie at whole vectors: a copy with zeros behind it. */
INLINE rows copy_head(int64_t n, int64_t K, int64_t whole, rows x, float *to) {
  for (int64_t r = 0; r < n; r++) {
    memcpy(to + r * whole, x.p + r * x.ld, (size_t)K * sizeof(float));
    memset(to + r * whole + K, 0, (size_t)(whole - K) * sizeof(float));
  }
  return (rows){to, whole};
}
