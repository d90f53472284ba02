// Epilogues in plain loops, written from docs/arithmetic.md, for the tests to compare kernels with.
#pragma once

#include <cstdint>

#include "runtime/epilogue.h"
#include "test/plain_activation.h"

namespace openwork::test {

uint16_t plain_bf16(float v);

// What the epilogue makes of a sum of channel c: a number, or where the output is quantized its u8, before any table. The
// residual comes as it is stored, a u8 with its zero point.
class PlainEpilogue {
 public:
  explicit PlainEpilogue(const EpilogueSpec& spec);
  float operator()(float sum, float residual, int64_t c) const;

 private:
  float value(float sum, float residual, size_t c) const;
  float scaled(float sum, float residual, size_t c) const;

  const EpilogueSpec& spec_;
  bool scaled_;
};

}  // namespace openwork::test
