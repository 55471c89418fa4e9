/* The mLSTM cell over whole sequences, and one step of it. Each head of each sequence by itself. */
#include "arena.h"
#include "export.h"
#include "mlstm_state.h"
#include "mlstm_step.h"
#include "parallel.h"

typedef struct {
  int64_t B, T, H, K, V, exponential, workers; /* T = 0: a step */
  const float *q, *k, *v, *i, *f;              /* [B, T, H, K or V], [B, T, H]; a step without T */
  const uint8_t *reset;                        /* [B, T] or null */
  const float *C, *n, *m;                      /* null: fresh */
  float *h, *C_1, *n_1, *m_1;
  const float *dh, *dC_1, *dn_1, *dm_1; /* from here on for the backward only; null: zero */
  float *dq, *dk, *dv, *di, *df, *dC, *dn, *dm;
  char *saved, *work;
} mlstm_arguments;

typedef struct {
  chunk_record *records; /* [B, H, N] */
  float *C, *n;          /* [B, H, N + 1, Kp, Vp] */
  gate_run *runs, *first;
} cell_saved;

typedef struct {
  const mlstm_arguments *a;
  head_size z;
  int64_t N, each; /* chunks a sequence; bytes of scratch a worker */
  cell_saved s;
  int32_t *broken; /* [B, H] */
} cell_pass;

typedef struct {
  float *tiles; /* q, k, v, h and their gradients [8, CHUNK, pad], where a head has odd sizes */
  float *chunk, *dC, *dn;
} cell_scratch;

static cell_scratch cut_cell_scratch(arena *from, head_size z) {
  const int64_t pad = z.Kp > z.Vp ? z.Kp : z.Vp;
  cell_scratch s;
  s.tiles = take(from, 8 * CHUNK * pad);
  s.chunk = take(from, chunk_work(z.Kp, z.Vp));
  s.dC = take(from, z.Kp * z.Vp), s.dn = take(from, z.Kp);
  return s;
}

static cell_pass begin_pass(const mlstm_arguments *a, int64_t *saved_bytes) {
  cell_pass f = {.a = a, .z = head_size_of(a->K, a->V), .N = (a->T + CHUNK - 1) / CHUNK};
  arena from = {a->saved, 0}, scratch = {0, 0};
  const int64_t X = a->B * a->H;
  f.s.records = (chunk_record *)take_bytes(&from, X * f.N * (int64_t)sizeof(chunk_record));
  f.s.C = take(&from, X * (f.N + 1) * f.z.Kp * f.z.Vp);
  f.s.n = take(&from, X * (f.N + 1) * f.z.Kp);
  f.s.runs = (gate_run *)take_bytes(&from, X * (int64_t)sizeof(gate_run));
  f.s.first = (gate_run *)take_bytes(&from, X * (int64_t)sizeof(gate_run));
  if (saved_bytes) *saved_bytes = from.used;
  cut_cell_scratch(&scratch, f.z);
  f.each = scratch.used;
  f.broken = (int32_t *)(a->work ? a->work + a->workers * f.each : 0);
  return f;
}

/* Rows of one head of a chunk: where they lie, or a copy at whole vectors. */
static rows head_rows(int64_t n, int64_t size, int64_t whole, const float *x, int64_t ld,
                      float *tile) {
  const rows given = {x, ld};
  return whole > size ? copy_head(n, size, whole, given, tile) : given;
}

static void forward_head(int index, int worker, void *context) {
  const cell_pass *f = context;
  const mlstm_arguments *a = f->a;
  const head_size z = f->z;
  const int64_t X = index, b = X / a->H, head = X % a->H, H = a->H;
  const int64_t tile = CHUNK * (z.Kp > z.Vp ? z.Kp : z.Vp);
  arena from = {a->work + worker * f->each, 0};
  const cell_scratch w = cut_cell_scratch(&from, z);
  const float *C0 = a->C ? a->C + X * a->K * a->V : 0, *n0 = C0 ? a->n + X * a->K : 0;
  gate_run run = begin_gates(a->K, a->V, C0, n0, C0 ? a->m + X : 0);
  f->s.first[X] = run;
  float *C = f->s.C + X * (f->N + 1) * z.Kp * z.Vp, *norm = f->s.n + X * (f->N + 1) * z.Kp;
  if (C0) state_in(z, C0, n0, C, norm);
  for (int64_t chunk = 0; chunk < f->N; chunk++, C += z.Kp * z.Vp, norm += z.Kp) {
    const int64_t t0 = chunk * CHUNK, n = a->T - t0 < CHUNK ? a->T - t0 : CHUNK;
    const int64_t r = (b * a->T + t0) * H + head; /* of [B * T, H] */
    chunk_record *record = f->s.records + X * f->N + chunk;
    chunk_gates(n, t0, a->i + r, a->f + r, H, a->reset ? a->reset + b * a->T + t0 : 0,
                a->exponential != 0, 1.0f / sqrtf((float)a->K), &run, record);
    const rows q = head_rows(n, a->K, z.Kp, a->q + r * a->K, H * a->K, w.tiles);
    const rows k = head_rows(n, a->K, z.Kp, a->k + r * a->K, H * a->K, w.tiles + tile);
    const rows v = head_rows(n, a->V, z.Vp, a->v + r * a->V, H * a->V, w.tiles + 2 * tile);
    float *h = a->h + r * a->V, *to = z.Vp > a->V ? w.tiles + 3 * tile : h;
    chunk_forward(n, z.Kp, z.Vp, q, k, v, record, C, norm, to, to == h ? H * a->V : z.Vp,
                  C + z.Kp * z.Vp, norm + z.Kp, w.chunk);
    for (int64_t j = 0; to != h && j < n; j++)
      memcpy(h + j * H * a->V, to + j * z.Vp, (size_t)a->V * sizeof(float));
  }
  f->s.runs[X] = run;
  state_out(z, C, norm, a->C_1 + X * a->K * a->V, a->n_1 + X * a->K);
  a->m_1[X] = run.m == NOTHING ? 0 : (float)run.m;
  f->broken[X] = run.broken || !all_finite(z.Kp * z.Vp, C) || !all_finite(z.Kp, norm) ||
                 !isfinite(a->m_1[X]);
}

static void backward_head(int index, int worker, void *context) {
  const cell_pass *f = context;
  const mlstm_arguments *a = f->a;
  const head_size z = f->z;
  const int64_t X = index, b = X / a->H, head = X % a->H, H = a->H, K = a->K, V = a->V;
  const int64_t tile = CHUNK * (z.Kp > z.Vp ? z.Kp : z.Vp);
  arena from = {a->work + worker * f->each, 0};
  const cell_scratch w = cut_cell_scratch(&from, z);
  const float *C = f->s.C + X * (f->N + 1) * z.Kp * z.Vp + f->N * z.Kp * z.Vp;
  const float *norm = f->s.n + X * (f->N + 1) * z.Kp + f->N * z.Kp;
  gate_run_back back = begin_gates_back(
      z, f->s.runs + X, C, norm, a->dC_1 ? a->dC_1 + X * K * V : 0, a->dn_1 ? a->dn_1 + X * K : 0,
      a->dm_1 ? a->dm_1 + X : 0, w.dC, w.dn);
  int broken = 0;
  for (int64_t chunk = f->N - 1; chunk >= 0; chunk--) {
    C -= z.Kp * z.Vp, norm -= z.Kp;
    const int64_t t0 = chunk * CHUNK, n = a->T - t0 < CHUNK ? a->T - t0 : CHUNK;
    const int64_t r = (b * a->T + t0) * H + head;
    const rows q = head_rows(n, K, z.Kp, a->q + r * K, H * K, w.tiles);
    const rows k = head_rows(n, K, z.Kp, a->k + r * K, H * K, w.tiles + tile);
    const rows v = head_rows(n, V, z.Vp, a->v + r * V, H * V, w.tiles + 2 * tile);
    const rows h = head_rows(n, V, z.Vp, a->h + r * V, H * V, w.tiles + 3 * tile);
    float *const grads[3] = {a->dq + r * K, a->dk + r * K, a->dv + r * V};
    rows_out out[3];
    for (int64_t e = 0; e < 3; e++) {
      const int64_t size = e < 2 ? K : V, whole = e < 2 ? z.Kp : z.Vp;
      out[e] = whole > size ? (rows_out){w.tiles + (4 + e) * tile, whole}
                            : (rows_out){grads[e], H * size};
    }
    float *dh = w.tiles + 7 * tile; /* a copy: it is overwritten */
    for (int64_t j = 0; j < n; j++) {
      memset(dh + j * z.Vp, 0, (size_t)z.Vp * sizeof(float));
      if (a->dh) memcpy(dh + j * z.Vp, a->dh + r * V + j * H * V, (size_t)V * sizeof(float));
    }
    float qdq[CHUNK], kdk[CHUNK];
    back.live = chunk_backward(n, z.Kp, z.Vp, q, k, v, f->s.records + X * f->N + chunk, C, norm, h,
                               (rows_out){dh, z.Vp}, out[0], out[1], out[2], qdq, kdk, w.dC, w.dn,
                               back.live, chunk > 0 || (a->dC && f->s.first[X].given), w.chunk);
    for (int64_t e = 0; e < 3; e++) {
      const int64_t size = e < 2 ? K : V;
      for (int64_t j = 0; out[e].p != grads[e] && j < n; j++)
        memcpy(grads[e] + j * H * size, out[e].p + j * out[e].ld, (size_t)size * sizeof(float));
    }
    for (int64_t j = 0; j < n; j++) broken |= !isfinite(qdq[j]) | !isfinite(kdk[j]);
    chunk_gates_back(n, t0, a->f + r, H, a->reset ? a->reset + b * a->T + t0 : 0,
                     a->exponential != 0, qdq, kdk, &back, a->di + r, a->df + r, H);
  }
  if (a->dC)
    end_gates_back(z, &back, a->C + X * K * V, a->n + X * K, w.dC, w.dn, a->dC + X * K * V,
                   a->dn + X * K, a->dm + X);
  f->broken[X] = broken;
}

static int run_cells(const mlstm_arguments *a, xl_body body) {
  cell_pass f = begin_pass(a, 0);
  const int64_t X = a->B * a->H;
  xl_parallel_for((int)X, body, &f);
  for (int64_t e = 0; e < X; e++)
    if (f.broken[e]) return 1;
  return 0;
}

XL_API int64_t xl_mlstm_saved_bytes(const mlstm_arguments *a);
XL_API int64_t xl_mlstm_work_bytes(const mlstm_arguments *a);
XL_API int xl_mlstm_forward(const mlstm_arguments *a);
XL_API int xl_mlstm_backward(const mlstm_arguments *a);
XL_API int xl_mlstm_step(const mlstm_arguments *a);

int64_t xl_mlstm_saved_bytes(const mlstm_arguments *a) {
  int64_t bytes;
  begin_pass(a, &bytes);
  return bytes;
}

int64_t xl_mlstm_work_bytes(const mlstm_arguments *a) {
  return a->workers * begin_pass(a, 0).each + a->B * a->H * (int64_t)sizeof(int32_t);
}

/* 1 if something is not finite: results are then wrong beyond what they should be */
int xl_mlstm_forward(const mlstm_arguments *a) { return run_cells(a, forward_head); }
int xl_mlstm_backward(const mlstm_arguments *a) { return run_cells(a, backward_head); }

int xl_mlstm_step(const mlstm_arguments *a) {
  const int64_t H = a->H, K = a->K, V = a->V;
  float written[K];
  for (int64_t X = 0; X < a->B * H; X += H) /* a row at a time; heads STEP_GATES at a time */
    for (int64_t head = 0; head < H; head += STEP_GATES) {
      step_gates gates;
      const int64_t at = X + head, count = H - head < STEP_GATES ? H - head : STEP_GATES;
      const float *C = a->C ? a->C + at * K * V : 0, *n = C ? a->n + at * K : 0;
      make_step_gates(count, H, K, V, a->i + at, a->f + at, C ? a->m + at : 0, C, n,
                      a->reset ? a->reset + X / H : 0, a->exponential != 0, a->m_1 + at, &gates);
      for (int64_t e = 0; e < count; e++)
        step_head(K, V, a->q + (at + e) * K, a->k + (at + e) * K, a->v + (at + e) * V, &gates, e,
                  C ? C + e * K * V : 0, n ? n + e * K : 0, a->C_1 + (at + e) * K * V,
                  a->n_1 + (at + e) * K, a->h + (at + e) * V, written);
    }
  return 0;
}
