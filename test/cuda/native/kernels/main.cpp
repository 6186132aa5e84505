// Every kernel of a CUDA library against the specification, without Node: kernels LIBRARY [order of threads [family]]
#include "cases.h"

int main(int argc, char** argv) {
  using namespace ds::test;
  if (argc < 2) {
    std::fprintf(stderr, "usage: kernels LIBRARY [order [family]]\n");
    return 2;
  }
  try {
    const DsCudaLibrary& library = open_library(argv[1]);
    if (argc > 2) {
      DsCudaEmulation settings{1, 2, size_t(1) << 30, std::strtoull(argv[2], nullptr, 10)};
      call(library.emulate, &settings);
    }
    int devices = 0;
    call(library.device_count, &devices);
    if (devices == 0) {
      std::printf("no CUDA device\n");
      return 77;
    }
    Cases cases(library);
    for (const Family* family = Family::first; family; family = family->next)
      if (argc <= 3 || family->name == argv[3]) family->run(cases);
  } catch (const ds::Error& e) {
    std::fprintf(stderr, "kernels: %s\n", e.what());
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kernels: %s\n", e.what());
    return 1;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
