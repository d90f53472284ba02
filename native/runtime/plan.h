// A program made concrete for one set of input shapes: where each value lies, and how each step's work is cut.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "runtime/program.h"

namespace openwork {

inline constexpr int64_t kOutside = -1;
// The size of a free dimension that no input has.
inline constexpr int64_t kUnknown = -1;

struct Plan {
  Sizes sizes;
  std::vector<int64_t> offset;  // in the arena; kOutside for inputs, outputs, their views and pieces, which have memory of their own
  std::vector<Work> work;       // of the steps
  int64_t scratch_offset = 0, scratch_stride = 0;
  int64_t arena_bytes = 0;
};

// What the sizes of all values follow from.
struct RunSizes {
  std::vector<int64_t> free;  // of the free dimensions; kUnknown of one that a step gives its size
  int64_t batch = 0;          // instead of the first size of every value, of a program that has a batch; 0: no other

  bool operator==(const RunSizes&) const = default;
};

// Throws std::invalid_argument where a step refuses the shapes.
std::shared_ptr<const Plan> make_plan(const Program& program, const RunSizes& sizes, int threads);

// The sizes of the free dimensions from the inputs' shapes. Throws std::invalid_argument with the input, the expected and
// the found shape.
std::vector<int64_t> free_sizes(const Program& program, const std::vector<std::vector<int64_t>>& shapes);

// The last used plans of one context.
class PlanCache {
 public:
  PlanCache(const Program& program, int threads, int max_plans);
  std::shared_ptr<const Plan> get(const RunSizes& sizes);

 private:
  struct Entry {
    RunSizes sizes;
    std::shared_ptr<const Plan> plan;
  };
  const Program& program_;
  int threads_;
  size_t max_plans_;
  std::list<Entry> entries_;  // last used first
};

}  // namespace openwork
