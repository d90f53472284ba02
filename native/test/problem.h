// Random products for the tests: weights of any pattern, activations by a table of pointers, and the plain loops of
// docs/arithmetic.md that say what must come out.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/packing.h"

namespace openwork::test {

// Which weights are zero: N:M of every row; the same for each `share` neighbouring rows; blocks; single weights.
struct Zeros {
  int kept = 0, group = 0;  // N:M; 0: see below
  int rows = 1, columns = 1;
  double fraction = 0.0;  // of blocks rows x columns
};

struct Problem {
  int64_t rows = 1;
  WeightShape shape;
  Type type = Type::i8;
  Zeros zeros;
  int zero_point = 0;
  Activation activation = Activation::none;
  bool quantized = false, residual = false;
  unsigned seed = 0;
  bool extreme = false;  // activations 0 or 255, weights -127 or 127
  float scale = 1e-4f;
};

inline Problem matrix(int64_t rows, int64_t k, int64_t n) {
  Problem p;
  p.rows = rows;
  p.shape = {n, k};
  return p;
}

struct Data {
  int64_t pixels = 0;
  std::vector<uint8_t> x;       // [pixels, shape.pixel()] of the type
  std::vector<int64_t> pixel;   // [runs, rows]: the first pixel of each run
  std::vector<uint8_t> weight;  // [n, kernel_h, kernel_w, channels] of the type
  std::vector<float> scale, bias, residual;
};

Data make_data(const Problem& p);

// x and weight as numbers.
double element(const std::vector<uint8_t>& bytes, Type type, int64_t at, bool is_signed);

// The sums before scale and bias: exact for i8, in increasing order of tap and channel for f32, in binary64 for bf16.
std::vector<double> plain_sums(const Problem& p, const Data& d);
// Sums of the magnitudes of what was added, for bounds of rounding errors.
std::vector<double> plain_magnitudes(const Problem& p, const Data& d);
// What the epilogue makes of the sums.
std::vector<float> plain_outputs(const Problem& p, const Data& d, const std::vector<double>& sums);

// A sum of m products, each exact in binary32, in any order and starting from zero is off by at most m 2^-24 (1 + small) of
// the sum of magnitudes; the epilogue here adds the bias, one rounding of at most |sum| + 1.
bool close(const std::vector<float>& found, const std::vector<float>& expected, const std::vector<double>& magnitudes, int64_t k);

std::string describe(const Problem& p);
std::string describe(const Problem& p, const PackedWeights& w);

// Runs the kernel in blocks of so many rows and spans of groups. x and y end at an unreadable page. Where the residual is as wide as
// y, the kernel runs again with both in one place, which must give the same bits.
std::vector<float> run_kernel(const Problem& p, const Data& d, const PackedWeights& w, int64_t block_rows, int64_t block_spans);

// The weights in every form that the instruction set has for them.
std::vector<std::shared_ptr<const PackedWeights>> pack_all(const Problem& p, const Data& d, const KernelTable& table);

}  // namespace openwork::test
