// What a body packs weights with: the weights by place, and the stream of steps that they become. One use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/packing.h"
#include "kernels/weight_reader.h"

namespace openwork {

// Groups of steps of different sizes, each group at a multiple of 64 bytes.
struct PackedStream {
  std::vector<std::byte> bytes;
  std::vector<int64_t> begins;  // [groups + 1]: of the groups, and the end
  std::vector<int64_t> steps;   // [groups]
};

class Packer {
 public:
  Packer(PackedWeights& to, const void* weight);

  const WeightShape& shape() const { return to_.shape_; }
  const WeightReader& reader() const { return reader_; }
  const FormInfo& info() const { return info_; }
  Type type() const { return to_.type_; }
  int64_t element() const { return bytes_; }    // its bytes
  int64_t slots() const { return 4 / bytes_; }  // elements of a lane in a step
  int64_t groups() const { return to_.groups_; }
  int64_t group_channels() const { return to_.channels() / to_.groups_; }
  int64_t channels() const { return to_.channels(); }

  // Memory for all steps, zero; the rest follows in the order of the stream.
  void allocate(int64_t steps, int64_t step_bytes);
  // Before each group's steps and after the last one's.
  void begin_group();
  void begin_run() { last_ = 0; }
  // A step whose window begins at that byte of the run.
  std::byte* add_step(int64_t offset);
  void end_run(int64_t steps);
  // All of them at once, in the place of what stands above.
  void put(const PackedStream& stream);
  // The place of each sum of a group within its span, which is so many groups.
  void set_order(std::vector<int32_t> order, int64_t span);

 private:
  PackedWeights& to_;
  WeightReader reader_;
  FormInfo info_;
  int64_t bytes_, step_bytes_ = 0;
  int64_t last_ = 0;  // where the window before began
};

}  // namespace openwork
