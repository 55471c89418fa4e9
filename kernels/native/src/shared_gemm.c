/* Products of whole blocks and layers, on several threads. */
#include "shared_gemm.h"

typedef struct {
  int64_t M, N, K, each; /* rows or columns of a share */
  matrix A, B;
  float *C;
  const float *Cin;
  int64_t ldc, ldi;
  char *scratch;
  int64_t scratch_each;
} gemm_share;

void own_gemm(int64_t M, int64_t N, int64_t K, matrix A, matrix B, float *C, int64_t ldc,
              const float *Cin, int64_t ldi, float *work) {
  gemm(M, N, K, A, B, C, ldc, Cin, ldi, work);
}

static void gemm_rows(int index, int worker, void *context) {
  const gemm_share *g = context;
  const int64_t m = index * g->each, left = g->M - m, row = g->A.transposed ? 1 : g->A.ld;
  if (left <= 0) return;
  matrix A = g->A;
  A.p += m * row;
  arena from = {g->scratch + worker * g->scratch_each, 0};
  gemm(left < g->each ? left : g->each, g->N, g->K, A, g->B, g->C + m * g->ldc, g->ldc,
       g->Cin ? g->Cin + m * g->ldi : 0, g->ldi, take(&from, gemm_work(g->N)));
}

static void gemm_columns(int index, int worker, void *context) {
  const gemm_share *g = context;
  const int64_t n = index * g->each, left = g->N - n, columns = left < g->each ? left : g->each;
  if (left <= 0) return;
  matrix B = g->B;
  B.p += n * (g->B.transposed ? g->B.ld : 1);
  arena from = {g->scratch + worker * g->scratch_each, 0};
  gemm(g->M, columns, g->K, g->A, B, g->C + n, g->ldc, g->Cin ? g->Cin + n : 0, g->ldi,
       take(&from, gemm_work(g->N)));
}

void shared_gemm(int64_t workers, int64_t M, int64_t N, int64_t K, matrix A, matrix B, float *C,
                 int64_t ldc, const float *Cin, int64_t ldi, char *scratch, int64_t each) {
  gemm_share all = {M, N, K, 0, A, B, C, Cin, ldc, ldi, scratch, each};
  /* Each thread packs its part of one factor and all of the other. A gradient of weights sums over
     all rows of both: there the shorter factor is the one that all of them pack. */
  if (A.transposed && M <= N && N >= workers * TILE_COLUMNS) {
    all.each = ROUND_UP((N + workers - 1) / workers, TILE_COLUMNS);
    xl_parallel_for((int)workers, gemm_columns, &all);
    return;
  }
  all.each = ROUND_UP((M + workers - 1) / workers, A.transposed ? TILE_ROWS : GEMM_MC / 5);
  xl_parallel_for((int)workers, gemm_rows, &all);
}
