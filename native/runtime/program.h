// An ordered list of steps over values (docs/program.md), checked as it is made. It holds no buffers: a Plan does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/packing.h"
#include "runtime/convolution/shape.h"
#include "runtime/epilogue.h"

namespace openwork {

enum class DType { u8, bf16, f32, i64 };
const char* dtype_name(DType dtype);
DType dtype_named(const std::string& name);  // throws std::invalid_argument
int64_t dtype_bytes(DType dtype);
std::string shape_text(const std::vector<int64_t>& dims);

// A tensor of the model that is borrowed, not copied: `owner` keeps the memory alive.
struct FloatTensor {
  const float* data = nullptr;
  std::vector<int64_t> shape;
  std::shared_ptr<const void> owner;

  explicit operator bool() const { return data != nullptr; }
};

// The scale and zero point of a u8 output; unused where the output is one of floats.
struct OutputQuantization {
  float scale = 1.0f;
  int zero_point = 0;
};

// The same with an optional multiplier of each channel, [n]: what is quantized is y * multiplier.
struct ChannelQuantization {
  OutputQuantization tensor;
  FloatTensor multiplier = {};
};

inline constexpr int kAbsent = -1;

struct EmbeddingSumSpec {
  int ids, type_ids, y;
  FloatTensor word, position, type;
};
struct LayerNormSpec {
  int x, y, yq;
  FloatTensor gamma, beta;
  float epsilon;
  ChannelQuantization quantization;
};
// x is u8 for weights of i8, f32 for those of f32, bf16 or f32, whose rows are then rounded, for those of bf16.
struct LinearSpec {
  int x, residual, y;
  std::vector<std::shared_ptr<const PackedWeights>> weights;  // each for up to `max_rows` rows; -1 in the last: any number
  std::vector<int64_t> max_rows;
  FloatTensor scale, bias;  // without a scale, which weights of i8 need, it is 1
  int x_zero_point;
  ActivationFunction activation;
  ChannelQuantization quantization;
  bool activation_last = false;  // after the residual
  OutputQuantization residual_quantization = {};  // of a u8 residual
};
// `layer.x` is [batch, height, width, channels]; its max_rows count output pixels.
struct ConvSpec {
  LinearSpec layer;
  ConvAttributes attributes;
};
struct AttentionSpec {
  int q, k, v, mask, y;  // k and v absent: q is [B, L, 3 H]
  int64_t heads;
  float scale;
  OutputQuantization quantization;
  std::optional<OutputQuantization> score = {}, probability = {};  // roundings of q k^T and of the softmax
};
// u8 inputs, each through a table of 256 bytes or as it is, or float inputs.
struct ConcatSpec {
  std::vector<int> inputs;
  int y;
  int64_t axis;
  std::vector<std::optional<LookupTable>> tables = {};  // one for each input, or none at all
};

// Shapes made concrete, and the number of threads to cut the work for.
struct Sizes {
  std::vector<std::vector<int64_t>> dims;
  int threads = 1;

  int64_t elements(int value) const;
  int64_t width(int value) const { return dims[value].back(); }
  int64_t rows(int value) const { return elements(value) / width(value); }
};

// Where the values of one run lie.
struct Buffers {
  std::vector<void*> values;
  std::byte* scratch = nullptr;
  int64_t scratch_stride = 0;  // bytes from one thread's to the next one's

  template <class T>
  T* get(int value) const {
    return value == kAbsent ? nullptr : static_cast<T*>(values[value]);
  }
  template <class T>
  T* scratch_of(int thread) const {
    return reinterpret_cast<T*>(scratch + thread * scratch_stride);
  }
};

struct Part {
  int64_t begin, end;  // units
  int thread;
};

// A step for concrete shapes: independent units, taken `chunk` at a time.
struct Work {
  int64_t units = 0;
  int64_t chunk = 1;
  int64_t scratch_bytes = 0;  // a thread
  std::function<void(const Buffers&, const Part&)> run;
  std::function<void(const Buffers&)> check;  // of the inputs' contents; throws std::invalid_argument; may be empty
};

// A value that a step reads.
struct Read {
  int value;
  bool ahead;    // up to kReadAhead bytes behind its last element too
  bool checked;  // its content decides what memory is touched, so `Work::check` looks at it first

  Read(int value_, bool ahead_ = false, bool checked_ = false) : value(value_), ahead(ahead_), checked(checked_) {}
};

struct Step {
  std::string name;
  std::vector<Read> reads;
  std::vector<int> writes;
  std::function<Work(const Sizes&)> bind;  // throws std::invalid_argument where the shapes do not do
};

struct Value {
  DType dtype;
  std::vector<int64_t> dims;  // -1 - s stands for the free dimension s
};

// Everything throws std::invalid_argument with a sentence that names the step, what it expected and what it found.
class Program {
 public:
  explicit Program(const KernelTable& table) : table_(table) {}
  Program(const Program&) = delete;  // steps refer to it
  Program& operator=(const Program&) = delete;

  int value(DType dtype, const std::vector<int64_t>& dims);
  void embedding_sum(const std::string& name, const EmbeddingSumSpec& spec);
  void layer_norm(const std::string& name, const LayerNormSpec& spec);
  void linear(const std::string& name, const LinearSpec& spec);
  void conv(const std::string& name, const ConvSpec& spec);
  void attention(const std::string& name, const AttentionSpec& spec);
  void mean_pool(const std::string& name, int x, int mask, int y);
  void l2_normalize(const std::string& name, int x, int y, float epsilon);
  void quantize(const std::string& name, int x, int y, const OutputQuantization& quantization);
  void dequantize(const std::string& name, int x, int y, const OutputQuantization& quantization);
  void lookup(const std::string& name, int x, int y, const LookupTable& table);
  void concat(const std::string& name, const ConcatSpec& spec);
  void add(const std::string& name, int a, int b, int y);
  void activate(const std::string& name, int x, int y, const ActivationFunction& activation);
  // Any other step; the methods above end here. Its values must exist.
  void add_step(Step step);
  // Nothing can be added afterwards, and only then can a context run the program.
  void finish(const std::vector<int>& inputs, const std::vector<int>& outputs);

  const KernelTable& table() const { return table_; }
  bool finished() const { return finished_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  int free_dimensions() const { return free_dimensions_; }

 private:
  const KernelTable& table_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<int> inputs_, outputs_;
  int free_dimensions_ = 0;
  bool finished_ = false;
};

}  // namespace openwork
