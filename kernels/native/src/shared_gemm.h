#pragma once
#include "arena.h"
#include "gemm.h"
#include "parallel.h"

/* A product of one thread: `gemm`, compiled once. */
void own_gemm(int64_t M, int64_t N, int64_t K, matrix A, matrix B, float *C, int64_t ldc,
              const float *Cin, int64_t ldi, float *work);

/* A product whose rows or columns are shared among threads: the cut does not change its result.
   Each thread has `each` bytes of `scratch`, gemm_work(N) floats at least. */
void shared_gemm(int64_t workers, int64_t M, int64_t N, int64_t K, matrix A, matrix B, float *C,
                 int64_t ldc, const float *Cin, int64_t ldi, char *scratch, int64_t each);
