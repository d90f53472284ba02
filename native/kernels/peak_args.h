// What the measurements of a core's limits take.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork {

// Unit: kPeakDots dot products of whole registers; a turn of the loop is long against its branch.
inline constexpr int kPeakDots = 24;
inline constexpr int kPeakFactorBytes = 128;

struct PeakArgs {
  Type type = Type::i8;
  const uint8_t* factors = nullptr;  // [kPeakFactorBytes]
  void* sum = nullptr;               // [kStripLanes] of INT32 or binary32
};

// Unit: one pass over the bytes, a multiple of kReadStep.
inline constexpr int64_t kReadStep = 512;

struct ReadArgs {
  const uint8_t* data = nullptr;
  int64_t bytes = 0;
};

}  // namespace openwork
