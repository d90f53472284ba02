// What the float operators take: plain pointers and sizes. Shapes, meaning and order of operations: docs/program.md and
// docs/arithmetic.md. Each operator runs over a range of its units, which are independent of each other.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"
#include "simd/math.h"

namespace openwork {

// Unit: a row of y.
struct EmbeddingSumArgs {
  const int64_t* ids = nullptr;       // [rows], inside the table
  const int64_t* type_ids = nullptr;  // [rows], or null with `type`
  const float* word = nullptr;
  const float* position = nullptr;
  const float* type = nullptr;
  int64_t length = 0;  // rows of one batch element: row r stands at position r mod length
  int64_t width = 0;
  float* y = nullptr;
  // Not below 0: positions count the other ids of the element alone, from here on, and these stand here.
  int64_t padding_id = -1;
};

// Unit: a row.
struct LayerNormArgs {
  const float* x = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  int64_t width = 0;
  float epsilon = 0.0f;
  float* y = nullptr;     // either of the two may be null
  uint8_t* yq = nullptr;
  const float* inverse_scale = nullptr;  // [width], for yq: y_multiplier / y_scale
  int32_t y_zero_point = 0;
};

constexpr int64_t strips_of(int64_t count) { return (count + kStripLanes - 1) / kStripLanes; }
constexpr int64_t pairs_of(int64_t count) { return (count + 1) / 2; }

// What one pass of the attention scores at most, on any instruction set: query rows in binary32, strips of 16 query rows in
// fixed point.
inline constexpr int64_t kAttentionRows = 8;
inline constexpr int64_t kAttentionStrips = 2;
// Keys whose weighted sum is exact in INT32.
inline constexpr int64_t kFixedBlock = 32;

// Where the attention in fixed point keeps its numbers: every array is whole vectors of 16.
struct FixedScratch {
  int32_t *key, *query, *value;
  float *key_unit, *query_unit, *value_unit, *room, *score;
  float* limit;                                 // of each query: how many of the kept keys it sees
  const float **key_row, **value_row;           // of each kept key
  int64_t* number;                              // of each kept key, among all
  int64_t floats;                               // all of it

  FixedScratch(float* base, int64_t length, int64_t keys, int64_t size) : floats(0) {
    const int64_t queries = strips_of(length) * kStripLanes, padded = strips_of(keys) * kStripLanes;
    const int64_t channels = strips_of(size) * kStripLanes;
    const auto take = [&](int64_t count) {
      float* const at = base ? base + floats : nullptr;
      floats += count;
      return at;
    };
    key = reinterpret_cast<int32_t*>(take(padded * pairs_of(size)));
    query = reinterpret_cast<int32_t*>(take(queries * pairs_of(size)));
    value = reinterpret_cast<int32_t*>(take(channels * pairs_of(keys)));
    key_unit = take(padded);
    query_unit = take(queries);
    value_unit = take(channels);
    room = take(channels * kStripLanes);
    score = take(kAttentionStrips * kStripLanes * keys);
    limit = take(queries);
    key_row = reinterpret_cast<const float**>(take(2 * padded));
    value_row = reinterpret_cast<const float**>(take(2 * padded));
    number = reinterpret_cast<int64_t*>(take(2 * padded));
  }
};

// Floats that one thread's attention works in: in fixed point, or keys, values, a block of scores and the mask twice.
inline int64_t attention_scratch(int64_t length, int64_t keys, int64_t size) {
  const int64_t padded = strips_of(keys) * kStripLanes, channels = strips_of(size) * kStripLanes;
  const int64_t general = padded * size + channels * keys + (kAttentionRows + 2) * padded;
  const int64_t fixed = FixedScratch(nullptr, length, keys, size).floats;
  return fixed > general ? fixed : general;
}

// To u8 and back: the quantizer that a model has between two float operators.
struct RoundTrip {
  Quantizer quantizer = {};
  float scale = 0.0f;  // 0: there is none

  explicit operator bool() const { return scale != 0.0f; }
};

// Numbers added to the scaled scores, [batches, heads or 1, length or 1, keys]: elements from one to the next, 0 where all share
// one. The batch elements take those of the bias in turn.
struct AttentionBias {
  const float* data = nullptr;  // null: there is none
  int64_t batches = 1, batch = 0, head = 0, query = 0;
};

// Queries, fewer than the keys, up to which the keys and values are read once, where they lie.
inline constexpr int64_t kFewQueries = 4;

// Unit: one of `parts` ranges of the queries of a (batch, head); the parts vary fastest.
struct AttentionArgs {
  const float* q = nullptr;  // [batch, length, heads * size], rows q_stride elements apart
  const float* k = nullptr;  // the new keys [batch, fresh, groups * size], rows `stride` elements apart; v alike
  const float* v = nullptr;
  int64_t q_stride = 0, stride = 0;
  const float* past_k = nullptr;  // [batch, groups, past, size]: keys before the new ones; past_v alike
  const float* past_v = nullptr;
  float* present_k = nullptr;  // [batch, groups, past + fresh, size], where all keys are put, or null; present_v alike
  float* present_v = nullptr;
  const int64_t* mask = nullptr;  // [batch, past + fresh] or null: every key is kept
  AttentionBias bias = {};
  bool causal = false;  // query i sees the keys up to i + past + fresh - length
  int64_t length = 0, past = 0, fresh = 0, heads = 0, groups = 0, size = 0;
  int64_t parts = 1;
  float scale = 1.0f;
  void* y = nullptr;  // [batch, length, heads * size]
  bool quantized = false;
  Quantizer quantizer;
  RoundTrip score = {}, probability = {};  // either takes the general form
  float* scratch = nullptr;  // this thread's, attention_scratch(length, keys(), size) floats, 64-byte aligned

  int64_t keys() const { return past + fresh; }
  bool few() const { return length <= kFewQueries && length < keys(); }
  // Keys that a query may see, those that a mask drops among them.
  int64_t seen(int64_t query) const {
    const int64_t last = query + keys() - length + 1;
    return !causal || last > keys() ? keys() : last < 0 ? 0 : last;
  }
};

// Unit: a block of kPoolBlock channels of a batch element; the blocks vary fastest.
inline constexpr int64_t kPoolBlock = 64;

struct MeanPoolArgs {
  const float* x = nullptr;  // [batch, length, width]
  const int64_t* mask = nullptr;
  int64_t length = 0, width = 0;
  float* y = nullptr;  // [batch, width]
};

// Unit: a row.
struct L2NormalizeArgs {
  const float* x = nullptr;
  int64_t width = 0;
  float epsilon = 0.0f;
  float* y = nullptr;
};

// Unit: a row of y.
struct FinishArgs {
  GemmArgs product;                   // its epilogue, residual and y
  const int32_t* integers = nullptr;  // the sums, or null: `floats`
  const float* floats = nullptr;
  int64_t stride = 0;                 // of the sums
  int64_t channel = 0, channels = 0;  // those of the sums, whole strips
};

// Unit: kElementBlock elements.
inline constexpr int64_t kElementBlock = 2048;

struct ElementArgs {
  const float* a = nullptr;
  int64_t count = 0;
  void* y = nullptr;  // u8 for `quantize`, else float
  Quantizer quantizer = {};
  ActivationFunction activation = {};  // `activate` only
};

// Unit: one of `parts` parts of x in order, each of whole vectors but for the last one's end. y[unit] is its least and greatest
// number, 0 among them; NaN are passed over.
struct MinMaxArgs {
  const float* x = nullptr;
  int64_t count = 0;
  int64_t parts = 1;
  float* y = nullptr;  // [parts, 2]
};

// What products begin and end with where the scale and the zero point of what they multiply are known only when they run. Unit: a
// channel.
struct RunScalesArgs {
  const int32_t* sums = nullptr;   // [channels], packed: of each channel's weights
  const float* scale = nullptr;    // [channels]: of its weights
  int32_t shift = 0;               // activation offset less zero point
  float x_scale = 1.0f;
  int32_t* start = nullptr;        // [channels]: shift * sum
  float* product = nullptr;        // [channels]: x_scale * scale
};

// One of two values whose elements meet.
struct BinarySide {
  const void* data = nullptr;
  bool bytes = false;  // which stand for numbers by scale and zero point
  float scale = 1.0f;
  int32_t zero_point = 0;
};

// Unit: `unit` elements of y, which b has too; or a row of them, of which `repeat` that follow each other meet the same row of b
// and which are y_stride elements apart in y; or b is one number for all.
struct BinaryArgs {
  BinarySide a, b;
  enum class Spread { none, rows, one } spread = Spread::none;
  int64_t count = 0, unit = kElementBlock, repeat = 1, y_stride = 0;
  void* y = nullptr;
  bool y_bytes = false;
  Quantizer quantizer = {};
  bool bounded = false;                  // of bytes: INT32 holds every number in units of y, and none is NaN
  uint8_t low = 0, high = 255;           // of bytes: what the activation leaves
  ActivationFunction activation = {};    // of floats: none, relu or clip
};

// Unit: a row.
struct PReluArgs {
  const float* x = nullptr;
  const float* slope = nullptr;  // [width]
  int64_t width = 0;
  float* y = nullptr;
};

// Unit: a row.
struct SoftmaxArgs {
  const float* x = nullptr;
  int64_t width = 0;
  void* y = nullptr;
  bool y_bytes = false;
  Quantizer quantizer = {};
  float* scratch = nullptr;  // [width], this thread's; of bytes only
};

// Unit: kElementBlock elements.
struct LookupArgs {
  const uint8_t* x = nullptr;
  const uint8_t* table = nullptr;  // [256]
  int64_t count = 0;
  uint8_t* y = nullptr;
};

// Unit: kElementBlock elements.
struct DequantizeArgs {
  const uint8_t* x = nullptr;
  int64_t count = 0;
  float scale = 1.0f;
  int32_t zero_point = 0;
  float* y = nullptr;
};

// Unit: kElementBlock elements.
struct RoundArgs {
  const float* x = nullptr;
  int64_t count = 0;
  uint16_t* y = nullptr;  // BF16
};

// Unit: a row of bytes, which becomes a part of a row of y.
struct CopyRowsArgs {
  const uint8_t* x = nullptr;
  int64_t bytes = 0;               // of a row of x
  int64_t x_stride = 0;            // bytes from row to row
  const uint8_t* table = nullptr;  // [256]: what stands for each byte; null: it stays
  uint8_t* y = nullptr;            // where the part of the first row begins
  int64_t y_stride = 0;            // bytes from row to row
};

}  // namespace openwork
