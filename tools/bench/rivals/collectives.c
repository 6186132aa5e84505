/* Collectives by MPI; see ../benches/collectives.mjs. Usage: mpirun -n RANKS collectives PRIMITIVE BYTES ITERATIONS */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *primitive;
static float *full, *part;
static int n, size;

static void call(void) {
  if (!strcmp(primitive, "all_reduce"))
    MPI_Allreduce(MPI_IN_PLACE, full, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  else if (!strcmp(primitive, "all_gather"))
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_FLOAT, full, n / size, MPI_FLOAT, MPI_COMM_WORLD);
  else
    MPI_Reduce_scatter_block(full, part, n / size, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

int main(int argc, char** argv) {
  int rank;
  if (argc != 4) return 2;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  primitive = argv[1];
  n = (int)(atol(argv[2]) / 4);
  int iterations = atoi(argv[3]), warm_up = (int)((1L << 28) / atol(argv[2]));
  if (warm_up < 3) warm_up = 3;
  full = malloc((size_t)n * 4), part = malloc((size_t)n * 4 / size);
  for (int i = 0; i < n; ++i) full[i] = (float)(i % 97) * (float)(rank + 1);
  call();
  int reduced = !strcmp(primitive, "reduce_scatter");
  const float* got = reduced ? part : full;
  int length = reduced ? n / size : n;
  double sum = 0;
  for (int i = 0; i < length; ++i) sum += got[i];
  double result[] = {got[0], got[1], got[95], got[length - 1], sum};
  memset(full, 0, (size_t)n * 4);
  for (int i = 0; i < warm_up; ++i) call();
  MPI_Barrier(MPI_COMM_WORLD);
  double start = MPI_Wtime();
  for (int i = 0; i < iterations; ++i) call();
  double seconds = MPI_Wtime() - start, slowest;
  MPI_Allreduce(&seconds, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  if (rank == 0)
    printf("{\"seconds\":%.9f,\"result\":[%.0f,%.0f,%.0f,%.0f,%.0f]}\n", slowest, result[0], result[1], result[2],
           result[3], result[4]);
  MPI_Finalize();
  return 0;
}
