#include "kernels/reduce/sum_ranks.h"

#include "cases.h"

namespace ds::test {
namespace {

Tensor flat(const void* data, DType dtype, int64_t n) {
  Tensor t;
  t.data = const_cast<void*>(data), t.dtype = dtype, t.present = true;
  t.dims[t.rank++] = n;
  return t;
}

// The op of the collectives has pointers for fields; the mirror moves tensors.
struct Sum : SumRanks {
  void check() const {}
  void visit(auto& v) {
    static std::vector<const void*> moved;
    moved.assign(sources, sources + ranks);
    for (const void*& source : moved) source = visited(v, source, dtype);
    sources = moved.data();
    out = visited(v, out, out_dtype);
  }
  // The contract word for word: f32 from rank 0 up (f64 for f64), scaled, added, rounded once.
  void ref() const { dtype == DType::f64 ? add_up<double>() : add_up<float>(); }

 private:
  void* visited(auto& v, const void* data, DType type) const {
    Tensor t = flat(data, type, n);
    v(t);
    return t.data;
  }
  template <class N>
  void add_up() const {
    Tensor to = flat(out, out_dtype, n);
    for (int64_t i = 0; i < n; ++i) {
      N total = N(get(flat(sources[0], dtype, n), i));
      for (int q = 1; q < ranks; ++q) total = total + N(get(flat(sources[q], dtype, n), i));
      volatile N scaled = total * N(scale);
      put(to, i, accumulate ? N(get(to, i)) + scaled : scaled);
    }
  }
};

void sum_ranks(Cases& cases) {
  const std::pair<DType, DType> pairs[] = {{DType::f32, DType::f32},  {DType::bf16, DType::bf16},
                                           {DType::bf16, DType::f32}, {DType::f16, DType::f16},
                                           {DType::f16, DType::f32},  {DType::f64, DType::f64}};
  for (int ranks : {1, 2, 3, 4, 8, 11, 17})
    for (int64_t n : {0, 1, 7, 255, 4104, 20001})
      for (int64_t shift : {0, 1})
        for (auto [in, out] : pairs)
          for (bool accumulate : {false, true}) {
            cases.begin(shift);
            std::vector<const void*> sources;
            for (int q = 0; q < ranks; ++q) sources.push_back(cases.tensor(in, {n}, 0, std::pow(10, q % 3)).data);
            // `out` apart, and on the place of a source in the middle.
            Sum op;
            static_cast<SumRanks&>(op) = {sources.data(), ranks,      in,   cases.tensor(out, {n}).data, out, n,
                                          -1.0 / 3,       accumulate, false};
            std::string what = std::to_string(ranks) + " ranks [" + std::to_string(n) + "] + " + std::to_string(shift) +
                               " " + dtype_name(in) + dtype_name(out) + (accumulate ? " accumulated" : "");
            cases.run(op, what, 1, 1, true);
            if (in != out) continue;
            op.out = const_cast<void*>(sources[size_t(ranks / 2)]);
            op.sources = sources.data();
            cases.run(op, what + " in place", 1, 1, true);
          }
}

const Family family("sum_ranks", sum_ranks);

}  // namespace
}  // namespace ds::test
