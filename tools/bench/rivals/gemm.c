/* The library's product called from C; see ../benches/gemm.mjs. Usage: gemm M N K TRANSPOSED_A TRANSPOSED_B ITERATIONS
 * C [M, N] = A B in row-major order; a transposed operand is stored the other way round. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Sixteenths between -6 and 6: products and sums of these lengths are exact, whatever their order. */
static float* filled(long n, long step) {
  float* p = aligned_alloc(4096, (size_t)(n * 4 + 4095) / 4096 * 4096);
  for (long i = 0; i < n; ++i) p[i] = (float)(i * step % 13 - 6) / 4;
  return p;
}

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  int M = atoi(argv[1]), N = atoi(argv[2]), K = atoi(argv[3]), ta = atoi(argv[4]), tb = atoi(argv[5]);
  int iterations = atoi(argv[6]);
  float *a = filled((long)M * K, 7), *b = filled((long)N * K, 5), *c = filled((long)M * N, 1);
#define CALL                                                                                                  \
  cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, M, N, K, 1, a, \
              ta ? M : K, b, tb ? K : N, 0, c, N)
  CALL;
  double sum = 0;
  for (long i = 0; i < (long)M * N; ++i) sum += c[i];
  CALL;
  double start = now();
  for (int i = 0; i < iterations; ++i) CALL;
  printf("{\"seconds\":%.9f,\"result\":[%.4f,%.4f,%.4f]}\n", now() - start, c[0], c[(long)M * N - 1], sum);
  return 0;
}
