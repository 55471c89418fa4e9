/* The middle of the block's backward: one sequence, chunk after chunk from its end. Per chunk:
   gate, skip and head norm; the cell, head by head; gates; q, k, v; the convolution. */
#include "mlstm_block_backward.h"

INLINE void gate_rows_backward(const backward_pass *f, int64_t r0, int64_t n, const float *c,
                               int64_t ldc, const small_grads *g, float *dc, int whole) {
  const mlstm_sizes z = f->z;
  const vf one = broadcast(1);
  for (int64_t r = r0; r < r0 + n; r++, c += ldc, dc += z.ldi)
    for (int64_t head = 0; head < f->a->H; head++) {
      const int64_t at = head * z.K;
      const float *h = f->s.h + r * z.ldi + at, *gate = f->s.up + r * z.ldu + z.inner + at;
      const float *weight = f->p.head_norm + at, *skip = f->p.skip + at;
      float *dy = f->dy + r * z.ldi + at, *dz = f->du + r * z.ldu + z.inner + at;
      float *y = f->y + r * z.ldi + at, *dweight = g->head_norm + at, *dskip = g->skip + at;
      const vf mean = broadcast(f->s.h_mean[r * f->a->H + head]);
      const vf inverse = broadcast(f->s.h_inverse[r * f->a->H + head]);
      vf sum = broadcast(0), along = broadcast(0);
      FOR_VECTORS(i, z.K, more) {
        const int64_t left = whole ? VW : more;
        const vf x = load_left(gate + i, left), sigmoid = vsigmoid(x), silu = x * sigmoid;
        const vf normed = (load_left(h + i, left) - mean) * inverse;
        const vf own = load_left(c + at + i, left), w = load_left(weight + i, left);
        const vf skips = load_left(skip + i, left);
        const vf inside = normed * w + skips * own, d = load_left(dy + i, left), ds = d * silu;
        store_left(y + i, inside * silu, left);
        store_left(dz + i, d * inside * (sigmoid + silu * (one - sigmoid)), left);
        store_left(dskip + i, load_left(dskip + i, left) + ds * own, left);
        store_left(dweight + i, load_left(dweight + i, left) + ds * normed, left);
        store_left(dc + at + i, ds * skips, left);
        const vf dn = ds * w;
        sum += dn;
        along += dn * normed;
        store_left(dy + i, dn, left);
      }
      const vf a = broadcast(sum_lanes(sum) / (float)z.K);
      const vf b = broadcast(sum_lanes(along) / (float)z.K);
      FOR_VECTORS(i, z.K, more) {
        const int64_t left = whole ? VW : more;
        const vf normed = (load_left(h + i, left) - mean) * inverse;
        store_left(dy + i, (load_left(dy + i, left) - a - normed * b) * inverse, left);
      }
    }
}

static void heads_backward(const backward_pass *f, backward_scratch w, int64_t b, int64_t chunk,
                           int64_t n, gate_run_back *runs) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const int64_t t0 = chunk * CHUNK, r0 = b * a->T + t0, size = z.head.Kp, tile = CHUNK * z.pad;
  const int odd = size > z.K;
  for (int64_t head = 0; head < a->H; head++) {
    const int64_t X = b * a->H + head, at = head * z.K;
    rows in[4];      /* q, k, v, h */
    rows_out out[4]; /* and their gradients */
    for (int64_t e = 0; e < 4; e++) {
      float *x = e < 3 ? w.forward.qkv + e * CHUNK * z.ldi + at : f->s.h + r0 * z.ldi + at;
      float *dx = e < 3 ? w.dqkv + e * CHUNK * z.ldi + at : f->dy + r0 * z.ldi + at;
      in[e] = (rows){x, z.ldi};
      if (odd) in[e] = copy_head(n, z.K, size, in[e], w.forward.tiles + e * tile);
      out[e] = (rows_out){odd ? w.dtiles + e * tile : dx, odd ? size : z.ldi};
      if (odd && e == 3) copy_head(n, z.K, size, (rows){dx, z.ldi}, out[e].p);
    }
    float qdq[CHUNK], kdk[CHUNK];
    const int wanted = chunk > 0 || (a->dbefore.C && f->s.first[X].given);
    runs[head].live = chunk_backward(
        n, size, size, in[0], in[1], in[2], f->s.records + X * z.N + chunk,
        kept_C(z, f->s, X, chunk), kept_n(z, f->s, X, chunk), in[3], out[3], out[0], out[1], out[2],
        qdq, kdk,
        w.dC + head * z.state, w.dn + head * z.pad, runs[head].live, wanted, w.forward.chunk);
    for (int64_t e = 0; odd && e < 3; e++)
      for (int64_t r = 0; r < n; r++)
        memcpy(w.dqkv + (e * CHUNK + r) * z.ldi + at, out[e].p + r * size,
               (size_t)z.K * sizeof(float));
    chunk_gates_back(n, t0, f->s.gates + r0 * z.ldg + a->H + head, z.ldg,
                     a->reset ? a->reset + r0 : 0, a->exponential != 0, qdq, kdk, runs + head,
                     w.dgates + head, w.dgates + a->H + head, z.ldg);
  }
}

/* through q, k, v into dc, which becomes the gradient in front of SiLU, and into u */
static void qkv_backward(const backward_pass *f, int64_t r0, int64_t n, const float *c, int64_t ldc,
                         const small_grads *g, backward_scratch w) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const float *u = f->s.up + r0 * z.ldu;
  float *du = f->du + r0 * z.ldu, *dc = w.dc;
  const float *dq = w.dqkv, *dk = dq + CHUNK * z.ldi, *dv = dk + CHUNK * z.ldi;
  if (a->S == 4)
    for (int64_t i = 0; i < z.inner; i += VW) {
      const four_lanes wq = load_lanes(f->turned_lanes + i, z.inner);
      const four_lanes wk = load_lanes(f->turned_lanes + 4 * z.inner + i, z.inner);
      const four_lanes wv = load_lanes(f->turned_lanes + 8 * z.inner + i, z.inner);
      float *lanes = g->lanes + i;
      four_lanes gq = load_lanes(lanes, z.inner), gk = load_lanes(lanes + 4 * z.inner, z.inner);
      for (int64_t r = 0; r < n; r++) {
        const vf q = load(dq + r * z.ldi + i), k = load(dk + r * z.ldi + i);
        const vf x = load(c + r * ldc + i);
        const vf x0 = FOURS(x, 0), x1 = FOURS(x, 1), x2 = FOURS(x, 2), x3 = FOURS(x, 3);
        gq.w0 += x0 * q, gq.w1 += x1 * q, gq.w2 += x2 * q, gq.w3 += x3 * q;
        gk.w0 += x0 * k, gk.w1 += x1 * k, gk.w2 += x2 * k, gk.w3 += x3 * k;
        store(dc + r * z.ldi + i,
              load(dc + r * z.ldi + i) + times_fours(q, wq) + times_fours(k, wk));
      }
      four_lanes gv = load_lanes(lanes + 8 * z.inner, z.inner);
      for (int64_t r = 0; r < n; r++) {
        const vf v = load(dv + r * z.ldi + i), x = load(u + r * z.ldu + i);
        gv.w0 += FOURS(x, 0) * v, gv.w1 += FOURS(x, 1) * v;
        gv.w2 += FOURS(x, 2) * v, gv.w3 += FOURS(x, 3) * v;
        store(du + r * z.ldu + i, load(du + r * z.ldu + i) + times_fours(v, wv));
      }
      const vf each[12] = {gq.w0, gq.w1, gq.w2, gq.w3, gk.w0, gk.w1,
                           gk.w2, gk.w3, gv.w0, gv.w1, gv.w2, gv.w3};
      for (int64_t e = 0; e < 12; e++) store(lanes + e * z.inner, each[e]);
    }
  else
    for (int64_t part = 0; part < 3; part++) {
      const float *d = w.dqkv + part * CHUNK * z.ldi, *x = part < 2 ? c : u;
      const int64_t ldx = part < 2 ? ldc : z.ldu;
      block_diagonal_any(n, a->I, a->S, d, z.ldi, a->weights.qkv + part * a->I * a->S, 1,
                         part < 2 ? dc : du, part < 2 ? z.ldi : z.ldu);
      block_diagonal_any_weights(n, a->I, a->S, x, ldx, d, z.ldi, g->lanes + part * a->I * a->S);
    }
  for (int64_t part = 0; a->weights.qkv_bias && part < 3; part++)
    for (int64_t r = 0; r < n; r++)
      for (int64_t i = 0; i < a->I; i++)
        g->qkv_bias[part * z.inner + i] += w.dqkv[(part * CHUNK + r) * z.ldi + i];
  for (int64_t r = 0; r < n; r++)
    for (int64_t i = 0; i < z.inner; i += VW) {
      const vf d = load(dc + r * z.ldi + i);
      if (!a->W) {
        store(du + r * z.ldu + i, load(du + r * z.ldu + i) + d);
        continue;
      }
      const vf sigmoid = load(f->s.gate_of_conv + (r0 + r) * z.ldi + i);
      store(dc + r * z.ldi + i, d * (sigmoid + load(c + r * ldc + i) * (broadcast(1) - sigmoid)));
    }
}

/* The rows of dc which saw the row t, a row of zeros where they did not; t may lie in the state. */
INLINE void look_ahead(const backward_pass *f, backward_scratch w, int64_t t, int64_t t0, int64_t n,
                       const float **ahead) {
  const int64_t W = f->a->W, ldi = f->z.ldi;
  for (int64_t k = 0; k < W; k++) {
    const int64_t at = t + k;
    if (at < 0 || at >= f->a->T || w.reach[at] < k) ahead[k] = f->zeros;
    else ahead[k] = at < t0 + n ? w.dc + (at - t0) * ldi : w.later + (at - t0 - n) * ldi;
  }
}

INLINE void convolution_backward(const backward_pass *f, int64_t r0, int64_t n, int64_t W,
                                 const small_grads *g, backward_scratch w) {
  const mlstm_sizes z = f->z;
  for (int64_t i = 0; i < z.inner; i += VW) {
    const float *dc = w.dc + i;
    float *taps = g->taps + i, *du = f->du + r0 * z.ldu + i;
    vf bias = load(g->conv_bias + i);
    for (int64_t r = 0; r < n; r++) bias += load(dc + r * z.ldi);
    store(g->conv_bias + i, bias);
    int64_t row = 0, k = 0; /* four at a time: what they share is loaded once, no sum waits */
    for (; row + 4 <= n; row += 4) {
      float *to = du + row * z.ldu;
      const four_steps own = {load(to), load(to + z.ldu), load(to + 2 * z.ldu), load(to + 3 * z.ldu)};
      const four_steps p = convolve_four(i, W, w.ahead + row * W, f->p.taps, z.inner, own);
      store(to, p.a), store(to + z.ldu, p.b);
      store(to + 2 * z.ldu, p.c), store(to + 3 * z.ldu, p.d);
    }
    for (; row < n; row++) {
      float *to = du + row * z.ldu;
      store(to, convolve_at(i, VW, W, w.ahead + row * W, f->p.taps, z.inner, load(to)));
    }
    for (; k + 4 <= W; k += 4) { /* tap k is row W - 1 - k */
      float *to = taps + (W - 1 - k) * z.inner;
      vf s0 = load(to), s1 = load(to - z.inner), s2 = load(to - 2 * z.inner), s3 = load(to - 3 * z.inner);
      for (int64_t r = 0; r < n; r++) {
        const vf d = load(dc + r * z.ldi);
        const float *const *back = w.forward.back + r * W + k;
        s0 += d * load(back[0] + i), s1 += d * load(back[1] + i);
        s2 += d * load(back[2] + i), s3 += d * load(back[3] + i);
      }
      store(to, s0), store(to - z.inner, s1);
      store(to - 2 * z.inner, s2), store(to - 3 * z.inner, s3);
    }
    for (; k < W; k++) {
      float *to = taps + (W - 1 - k) * z.inner;
      vf sum = load(to);
      for (int64_t r = 0; r < n; r++) sum += load(dc + r * z.ldi) * load(w.forward.back[r * W + k] + i);
      store(to, sum);
    }
  }
}

/* behind a chunk: the gradient of the state of the convolution, and what earlier chunks will ask */
static void hand_on_rows(const backward_pass *f, int64_t n, backward_scratch w) {
  const int64_t W = f->a->W, ldi = f->z.ldi;
  const size_t bytes = (size_t)ldi * sizeof(float);
  for (int64_t e = W - 2; e >= 0; e--)
    memcpy(w.later + e * ldi, e < n ? w.dc + e * ldi : w.later + (e - n) * ldi, bytes);
}

static void conv_state_backward(const backward_pass *f, int64_t b, backward_scratch w) {
  const mlstm_block_arguments *a = f->a;
  const int64_t W = a->W, I = a->I;
  const float *ahead[W];
  const float *dafter = a->dafter.conv ? a->dafter.conv + b * (W - 1) * I : 0;
  for (int64_t e = 0; e < W - 1; e++) { /* step e - (W - 1), before the sequence */
    float *to = a->dbefore.conv + (b * (W - 1) + e) * I;
    look_ahead(f, w, e - (W - 1), 0, 0, ahead);
    const int64_t row = e - a->T; /* where it lies in the state behind */
    const int kept = dafter && row >= 0 && w.reach[a->T - 1] >= W - 2 - row;
    FOR_VECTORS(i, I, left) {
      const vf own = kept ? load_left(dafter + row * I + i, left) : broadcast(0);
      store_left(to + i, convolve_at(i, VW, W, ahead, f->p.taps, f->z.inner, own), left);
    }
  }
}

void sequence_backward(const backward_pass *f, int64_t b, const small_grads *g,
                       backward_scratch w) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const int64_t H = a->H, K = z.K, W = a->W;
  const uint8_t *reset = a->reset ? a->reset + b * a->T : 0;
  const float *past = conv_past(a, w.forward, b);
  memset(w.dgates, 0, (size_t)(CHUNK * z.ldg) * sizeof(float));
  gate_run_back runs[H];
  for (int64_t head = 0; head < H; head++) {
    const int64_t X = b * H + head;
    const mlstm_state d = a->dafter;
    runs[head] = begin_gates_back(
        z.head, f->s.runs + X, kept_C(z, f->s, X, z.N), kept_n(z, f->s, X, z.N),
        d.C ? d.C + X * K * K : 0, d.n ? d.n + X * K : 0, d.m ? d.m + X : 0, w.dC + head * z.state,
        w.dn + head * z.pad);
  }
  int64_t reach = past ? W - 1 : -1;
  for (int64_t t = 0; W && t < a->T; t++)
    w.reach[t] = (int32_t)(reach = next_reach(reach, reset && reset[t], W));

  for (int64_t chunk = z.N - 1; chunk >= 0; chunk--) {
    const int64_t t0 = chunk * CHUNK, n = a->T - t0 < CHUNK ? a->T - t0 : CHUNK, r0 = b * a->T + t0;
    const float *u = f->s.up + r0 * z.ldu, *c = W ? f->s.conv + r0 * z.ldi : u;
    const int64_t ldc = W ? z.ldi : z.ldu, G = ROUND_UP(2 * H, VW);
    float *du = f->du + r0 * z.ldu;
    if (K % VW) gate_rows_backward(f, r0, n, c, ldc, g, w.dc, 0);
    else gate_rows_backward(f, r0, n, c, ldc, g, w.dc, 1);
    clear_ends(n, a->I, z.inner, w.dc, z.ldi);
    make_qkv(a, f->p, n, c, ldc, u, z.ldu, w.forward.qkv);
    heads_backward(f, w, b, chunk, n, runs);
    for (int64_t part = 0; part < 3; part++)
      clear_ends(n, a->I, z.inner, w.dqkv + part * CHUNK * z.ldi, z.ldi);

    product(z.inner, G, n, (strided){c, 1, ldc}, WHOLE, w.dgates, z.ldg, g->fold_c, z.ldg,
            g->fold_c, z.ldg, 1);
    product(z.inner, G, n, (strided){u, 1, z.ldu}, WHOLE, w.dgates, z.ldg, g->fold_u, z.ldg,
            g->fold_u, z.ldg, 1);
    for (int64_t e = 0; e < 2 * H; e++) { /* of both signs, and many: their sum is small */
      double sum = 0;
      for (int64_t r = 0; r < n; r++) sum += w.dgates[r * z.ldg + e];
      g->gates[e] = (float)(g->gates[e] + sum);
    }
    product(n, z.inner, 2 * H, (strided){w.dgates, z.ldg, 1}, WHOLE, f->turned_c, z.inner, w.dc,
            z.ldi, w.dc, z.ldi, 1);
    product(n, z.inner, 2 * H, (strided){w.dgates, z.ldg, 1}, WHOLE, f->turned_u, z.inner, du,
            z.ldu, 0, 0, 1);
    qkv_backward(f, r0, n, c, ldc, g, w);
    if (!W) continue;
    look_back(n, t0, W, reset, t0 ? w.reach[t0 - 1] : past ? W - 1 : -1,
              f->s.up + b * a->T * z.ldu, z.ldu, past, z.inner, f->zeros, w.forward.back);
    for (int64_t r = 0; r < n; r++) look_ahead(f, w, t0 + r, t0, n, w.ahead + r * W);
    if (W == 4) convolution_backward(f, r0, n, 4, g, w);
    else convolution_backward(f, r0, n, W, g, w);
    for (int64_t r = 0; a->dafter.conv && r < n; r++) {
      const int64_t age = a->T - 1 - (t0 + r), e = W - 2 - age;
      if (e < 0 || age > w.reach[a->T - 1]) continue;
      const float *d = a->dafter.conv + (b * (W - 1) + e) * a->I;
      for (int64_t i = 0; i < a->I; i++) du[r * z.ldu + i] += d[i];
    }
    hand_on_rows(f, n, w);
  }
  if (W && a->dbefore.conv) conv_state_backward(f, b, w);
  for (int64_t head = 0; a->dbefore.C && head < H; head++) {
    const int64_t X = b * H + head;
    end_gates_back(z.head, runs + head, a->before.C + X * K * K, a->before.n + X * K,
                   w.dC + head * z.state, w.dn + head * z.pad, a->dbefore.C + X * K * K,
                   a->dbefore.n + X * K, a->dbefore.m + X);
  }
}
