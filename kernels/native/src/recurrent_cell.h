/* One step of an LSTM or a GRU, from what x and h bring to its gates. */
#pragma once
#include "vector.h"

/* c and h [H] become those after the step. raw: pre-activations [4 H]; gates [4 H] and kept_c [H],
   what a backward reads, are written. */
LOCAL void lstm_row(int64_t H, const float *raw, float *gates, float *c, float *h, float *kept_c) {
  FOR_VECTORS(e, H, left) {
    const vf i = vsigmoid(load_left(raw + e, left)), f = vsigmoid(load_left(raw + H + e, left));
    const vf g = vtanh(load_left(raw + 2 * H + e, left)), o = vsigmoid(load_left(raw + 3 * H + e, left));
    const vf after = f * load_left(c + e, left) + i * g;
    store_left(gates + e, i, left), store_left(gates + H + e, f, left);
    store_left(gates + 2 * H + e, g, left), store_left(gates + 3 * H + e, o, left);
    store_left(c + e, after, left), store_left(kept_c + e, after, left);
    store_left(h + e, o * vtanh(after), left);
  }
}

/* h [H] becomes that after the step. gates [4 H]: what x brings, on return what a backward reads;
   of_h: what h brings [3 H]. */
LOCAL void gru_row(int64_t H, float *gates, const float *of_h, float *h) {
  FOR_VECTORS(e, H, left) {
    const vf r = vsigmoid(load_left(gates + e, left) + load_left(of_h + e, left));
    const vf z = vsigmoid(load_left(gates + H + e, left) + load_left(of_h + H + e, left));
    const vf to_n = load_left(of_h + 2 * H + e, left);
    const vf n = vtanh(load_left(gates + 2 * H + e, left) + r * to_n);
    store_left(gates + e, r, left), store_left(gates + H + e, z, left);
    store_left(gates + 2 * H + e, n, left), store_left(gates + 3 * H + e, to_n, left);
    store_left(h + e, n + z * (load_left(h + e, left) - n), left);
  }
}
