// What the adders of a program have in common: checks that name the step and the argument.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/program.h"

namespace openwork {

class StepChecks {
 public:
  StepChecks(const Program& program, const std::string& name, const char* op);

  [[noreturn]] void fail(const std::string& sentence) const;
  void expect(bool holds, const std::string& sentence) const {
    if (!holds) fail(sentence);
  }

  const Value& value(int id, const char* role) const;
  const Value& value(int id, const char* role, DType dtype) const;
  const Value& value(int id, const char* role, std::initializer_list<DType> dtypes) const;
  void same_shape(const Value& found, const char* role, const std::vector<int64_t>& expected) const;
  // The last dimension, which a step with tensors needs fixed.
  int64_t width(const Value& value, const char* role) const;

  void tensor(const FloatTensor& tensor, const char* role, const std::vector<int64_t>& shape) const;
  // Copies what is read in whole strips, and refuses NaN and infinity.
  Floats finite(const FloatTensor& tensor, const char* role) const;
  void positive(float number, const char* role) const;
  // A finite scale whose inverse is finite, and a zero point.
  void quantization(const OutputQuantization& quantization, const char* scale_role, const char* zero_point_role) const;
  void zero_point(int number, const char* role) const;
  // alpha and beta are numbers, and the ends of a clip in order.
  void activation(const ActivationFunction& activation) const;
  // Of a u8 output; a default one for another.
  Quantizer quantizer(const Value& y, const OutputQuantization& quantization) const;
  // The inverse scale of each of the n channels of a u8 output; empty for another.
  Floats inverse_scales(const Value& y, const ChannelQuantization& quantization, int64_t n) const;

 private:
  const Program& program_;
  std::string where_;
};

// The work of an operator: `fixed` holds what the shapes decide, `fill` adds this run's pointers.
template <class Args, class Fill>
Work make_work(int64_t units, int64_t chunk, void (*op)(const Args&, int64_t, int64_t), const Args& fixed, Fill fill) {
  Work work;
  work.units = units;
  work.chunk = chunk;
  work.run = [op, fixed, fill](const Buffers& buffers, const Part& part) {
    Args args = fixed;
    fill(args, buffers, part.thread);
    op(args, part.begin, part.end);
  };
  return work;
}

// Chunks for units that are small and many: a few for each thread.
inline int64_t even_chunk(int64_t units, int threads) {
  const int64_t chunks = threads == 1 ? 1 : 4 * threads;
  return (units + chunks - 1) / chunks;
}

}  // namespace openwork
