/* One step of the sLSTM's cell, for VW elements (kernels/EQUATIONS.md). */
#pragma once
#include "vector.h"

/* A step of `VW` elements: the gates of what is saved, and the state behind it. */
typedef struct {
  vf write, forget, to_f, z, o, c, n, m, h;
} slstm_after;

/* E = exp(-|f|) serves log sigmoid(f) and sigmoid(-f), its derivative. */
INLINE void forget_gate(vf f, int exponential, vf *log_forget, vf *slope) {
  if (exponential) {
    *log_forget = f;
    *slope = broadcast(1);
    return;
  }
  vf e = vexp(-vabs(f)), rest = broadcast(1) / (broadcast(1) + e);
  *log_forget = pick(MASK(f < broadcast(0)), f, broadcast(0)) - vlog1p_unit(e);
  *slope = pick(MASK(f < broadcast(0)), rest, e * rest);
}

/* Of write and forget one is 1, the other exp(-|i - lf|); a NaN of m is one of write. */
INLINE slstm_after cell(vf i, vf f, vf z, vf o, vf c, vf n, vf m, int exponential, int first) {
  slstm_after s;
  vf log_forget, slope;
  forget_gate(f, exponential, &log_forget, &slope);
  log_forget += m;
  vf d = i - log_forget, small = vexp(-vabs(d));
  const vi older = MASK(log_forget >= i);
  s.m = pick(older, log_forget, pick(MASK(i > log_forget), i, i + log_forget));
  s.write = pick(older, small, broadcast(1));
  s.forget = pick(older, broadcast(1), small);
  if (first) {  /* where nothing was written yet, m is i */
    const vi fresh = MASK(n == broadcast(0));
    vf over = pick(MASK(d < broadcast(-EXP_BOUND)), broadcast(EXP_BOUND), -d);
    s.m = pick(fresh, i, s.m);
    s.write = pick(fresh, broadcast(1), s.write);
    s.forget = pick(fresh, vexp(over), s.forget);
  }
  s.write += s.m - s.m;  /* i = inf is a NaN there */
  s.to_f = s.forget * slope;
  s.z = vtanh(z);
  s.o = vsigmoid(o);
  s.c = c * s.forget + s.write * s.z;
  s.n = n * s.forget + s.write;
  s.h = s.o * s.c / s.n;
  return s;
}

/* Where an episode starts: there is nothing to forget, and m is i. */
INLINE slstm_after first_cell(vf i, vf f, vf z, vf o) {
  slstm_after s;
  s.m = i;
  s.write = broadcast(1) + (i - i) + pick(MASK(f == f), broadcast(0), f); /* a NaN of f stays one */
  s.forget = s.to_f = broadcast(0);
  s.z = vtanh(z);
  s.o = vsigmoid(o);
  s.c = s.write * s.z;
  s.n = s.write;
  s.h = s.o * s.c;
  return s;
}
