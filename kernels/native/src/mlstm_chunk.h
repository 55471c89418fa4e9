/* One chunk of one head of the mLSTM: kernels/EQUATIONS.md, "Chunks" and "Backward".

   q, k [n, K] and v [n, V] are rows with strides of their own, K and V multiples of VW (what a head
   lacks is filled with zeros). States are C [K, V] and n [K]. */
#pragma once
#include "mlstm_gates.h"

typedef struct {
  const float *p;
  int64_t ld;
} rows;

INLINE rows rows_from(rows x, int64_t row) { return (rows){x.p + row * x.ld, x.ld}; }

INLINE int64_t chunk_work(int64_t K, int64_t V) { /* floats, of either direction */
  const int64_t side = K > V ? K : V;
  return 3 * CHUNK * side + CHUNK * CHUNK + K * V + CHUNK;
}

/* [n, N] turned into [N, CHUNK]; the columns up to the end of the last square of a triangle are zeros */
INLINE void turn_chunk(int64_t n, int64_t N, rows x, float *turned) {
  const int64_t whole = ROUND_UP(n, TRIANGLE_SIDE);
  transpose(n, N, x.p, x.ld, turned, CHUNK);
  for (int64_t j = 0; n < whole && j < N; j++)
    memset(turned + j * CHUNK + n, 0, (size_t)(whole - n) * sizeof(float));
}

/* to [n, N] = x, row by row times a weight */
INLINE void scale_rows(int64_t n, int64_t N, rows x, const float *weights, float *to) {
  for (int64_t i = 0; i < n; i++) {
    const vf w = broadcast(weights[i]);
    for (int64_t e = 0; e < N; e += VW) store(to + i * N + e, load(x.p + i * x.ld + e) * w);
  }
}

/* [n, n] = a [n, N] b^T, of which the triangle on and below the diagonal is made; b comes turned */
INLINE void triangle(int64_t n, int64_t N, rows a, const float *turned, float *to) {
  for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
    const int64_t left = n - j < TILE_COLUMNS ? ROUND_UP(n - j, TRIANGLE_SIDE) : TILE_COLUMNS;
    product(n - j, left, N, (strided){a.p + j * a.ld, a.ld, 1}, WHOLE, turned + j, CHUNK,
            to + j * CHUNK + j, CHUNK, 0, 0, 1);
  }
}

/* h [n, V] and, unless they are null, the states C_1, n_1 behind the chunk. Reads the weights of
   the record, writes its scores and sums. */
INLINE void chunk_forward(int64_t n, int64_t K, int64_t V, rows q, rows k, rows v, chunk_record *r,
                          const float *C, const float *norm, float *h, int64_t ldh, float *C_1,
                          float *norm_1, float *work) {
  float *turned = work, *scaled = turned + CHUNK * K, *numerator = scaled + CHUNK * K;
  float *scores = r->scores;
  const int64_t heard = r->carries, from = r->kept, left = n - from;
  turn_chunk(n, K, k, turned);
  triangle(n, K, q, turned, scores);
  for (int64_t i = 0; i < n; i++) {
    vf sum = broadcast(0);
    for (int64_t j = 0; j < ROUND_UP(i + 1, TRIANGLE_SIDE); j += VW) {
      const vf s = load(scores + i * CHUNK + j) * load(r->within + i * CHUNK + j);
      store(scores + i * CHUNK + j, s);
      sum += s;
    }
    r->sums[i] = sum_lanes(sum);
  }
  product(n, V, n, (strided){scores, CHUNK, 1}, LOWER, v.p, v.ld, numerator, V, 0, 0, 1);
  if (heard) {
    scale_rows(heard, K, q, r->carried, scaled);
    for (int64_t i = 0; i < heard; i++) {
      vf sum = broadcast(0);
      for (int64_t e = 0; e < K; e += VW) sum += load(scaled + i * K + e) * load(norm + e);
      r->sums[i] += sum_lanes(sum);
    }
    product(heard, V, K, (strided){scaled, K, 1}, WHOLE, C, V, numerator, V, numerator, V, 1);
  }
  for (int64_t i = 0; i < n; i++) {
    const float size = fabsf(r->sums[i]); /* where it is no number h is none */
    const vf inverse = broadcast(1.0f / (size <= r->floor[i] ? r->floor[i] : size));
    for (int64_t e = 0; e < V; e += VW)
      store(h + i * ldh + e, load(numerator + i * V + e) * inverse);
  }
  if (!C_1) return;
  const int keeps = r->decay != 0;
  scale_rows(left, K, rows_from(k, from), r->last + from, scaled);
  for (int64_t e = 0; e < K; e += VW) {
    vf sum = keeps ? load(norm + e) * broadcast(r->decay) : broadcast(0);
    for (int64_t j = 0; j < left; j++) sum += load(scaled + j * K + e);
    store(norm_1 + e, sum);
  }
  product(K, V, left, (strided){scaled, 1, K}, WHOLE, rows_from(v, from).p, v.ld, C_1, V,
          keeps ? C : 0, V, r->decay);
}

typedef struct {
  float *p;
  int64_t ld;
} rows_out;

/* The gradients of q, k, v, and q . dq, k . dk of every step. dC, dn come as those of the state
   behind the chunk and leave as those of the state before it; `live` says whether they hold
   anything, and `wanted` whether anybody asks for them before the chunk. dh is overwritten. */
INLINE int chunk_backward(int64_t n, int64_t K, int64_t V, rows q, rows k, rows v,
                          const chunk_record *r, const float *C, const float *norm, rows h,
                          rows_out dh, rows_out dq, rows_out dk, rows_out dv, float *qdq, float *kdk,
                          float *dC, float *dn, int live, int wanted, float *work) {
  const int64_t side = K > V ? K : V;
  float *turned = work, *scaled = turned + CHUNK * side, *dscores = scaled + CHUNK * side;
  float *state = dscores + CHUNK * CHUNK, *dsum = state + K * V;
  const int64_t heard = r->carries, from = r->kept, left = n - from;

  for (int64_t i = 0; i < n; i++) { /* dh becomes the gradient of the numerator */
    const float size = fabsf(r->sums[i]), floor = r->floor[i];
    const float inverse = 1.0f / (size <= floor ? floor : size);
    vf along = broadcast(0);
    for (int64_t e = 0; e < V; e += VW) {
      const vf g = load(dh.p + i * dh.ld + e);
      along += g * load(h.p + i * h.ld + e);
      store(dh.p + i * dh.ld + e, g * broadcast(inverse));
    }
    const float ds = -sum_lanes(along) * inverse;
    dsum[i] = size <= floor ? 0 : r->sums[i] < 0 ? -ds : ds;
  }
  const rows dnum = {dh.p, dh.ld};
  turn_chunk(n, V, v, turned);
  triangle(n, V, dnum, turned, dscores);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < ROUND_UP(i + 1, TRIANGLE_SIDE); j += VW) {
      const vf d = load(dscores + i * CHUNK + j) + broadcast(dsum[i]);
      store(dscores + i * CHUNK + j, d * load(r->within + i * CHUNK + j));
    }

  product(n, K, n, (strided){dscores, CHUNK, 1}, LOWER, k.p, k.ld, dq.p, dq.ld, 0, 0, 1);
  if (heard) {
    transpose(K, V, C, V, state, K);
    scale_rows(heard, V, dnum, r->carried, scaled);
    product(heard, K, V, (strided){scaled, V, 1}, WHOLE, state, K, dq.p, dq.ld, dq.p, dq.ld, 1);
  }
  for (int64_t i = 0; i < n; i++) {
    const vf w = broadcast(i < heard ? r->carried[i] * dsum[i] : 0);
    vf sum = broadcast(0);
    for (int64_t e = 0; e < K; e += VW) {
      vf d = load(dq.p + i * dq.ld + e);
      if (i < heard) d += w * load(norm + e);
      store(dq.p + i * dq.ld + e, d);
      sum += d * load(q.p + i * q.ld + e);
    }
    qdq[i] = sum_lanes(sum);
  }

  product(n, K, n, (strided){dscores, 1, CHUNK}, UPPER, q.p, q.ld, dk.p, dk.ld, 0, 0, 1);
  product(n, V, n, (strided){r->scores, 1, CHUNK}, UPPER, dnum.p, dnum.ld, dv.p, dv.ld, 0, 0, 1);
  if (live) {
    float *dk_from = dk.p + from * dk.ld, *dv_from = dv.p + from * dv.ld;
    transpose(K, V, dC, V, state, K);
    scale_rows(left, V, rows_from(v, from), r->last + from, scaled);
    product(left, K, V, (strided){scaled, V, 1}, WHOLE, state, K, dk_from, dk.ld, dk_from, dk.ld, 1);
    scale_rows(left, K, rows_from(k, from), r->last + from, scaled);
    product(left, V, K, (strided){scaled, K, 1}, WHOLE, dC, V, dv_from, dv.ld, dv_from, dv.ld, 1);
  }
  for (int64_t i = 0; i < n; i++) {
    const vf w = broadcast(r->last[i]);
    vf sum = broadcast(0);
    for (int64_t e = 0; e < K; e += VW) {
      vf d = load(dk.p + i * dk.ld + e);
      if (live && i >= from) d += w * load(dn + e);
      store(dk.p + i * dk.ld + e, d);
      sum += d * load(k.p + i * k.ld + e);
    }
    kdk[i] = sum_lanes(sum);
  }

  if (!wanted) return live;
  if (!heard) return 0; /* the chunk begins with a memory of its own */
  const int keeps = live && r->decay != 0;
  /* a fresh state's weight may be large where dnum is small: their product first */
  scale_rows(heard, V, dnum, r->carried, scaled);
  for (int64_t e = 0; e < K; e += VW) {
    vf sum = keeps ? load(dn + e) * broadcast(r->decay) : broadcast(0);
    for (int64_t i = 0; i < heard; i++)
      sum += broadcast(r->carried[i] * dsum[i]) * load(q.p + i * q.ld + e);
    store(dn + e, sum);
  }
  product(K, V, heard, (strided){q.p, 1, q.ld}, WHOLE, scaled, V, dC, V, keeps ? dC : 0, V,
          r->decay);
  return 1;
}
