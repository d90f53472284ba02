#include "runtime/plan.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "runtime/buffer.h"

namespace openwork {

namespace {

// A value lives from the step that makes it, or its first piece, (-1: an input) to the last one that reads it, or a view of it.
struct Life {
  int first = -1, last = -1;
  int64_t bytes = 0, offset = kOutside;

  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
};

std::vector<Life> find_lives(const Program& program, const Sizes& sizes) {
  std::vector<Life> lives(program.values().size());
  for (size_t v = 0; v < lives.size(); ++v)
    lives[v].bytes = padded_bytes(sizes.elements(static_cast<int>(v)) * dtype_bytes(program.values()[v].dtype));
  // A view is made after what it is a view of, so that the first step is the one that makes its home's bytes.
  std::vector<bool> made(lives.size(), false);
  for (const int v : program.inputs()) made[static_cast<size_t>(v)] = true;
  for (int i = 0; i < static_cast<int>(program.steps().size()); ++i) {
    for (const int v : program.steps()[i].writes) {
      const auto home = static_cast<size_t>(program.home(v));
      if (!made[home]) lives[home].first = i;
      made[home] = true;
      lives[home].last = i;
    }
    for (const Read& read : program.steps()[i].reads) lives[static_cast<size_t>(program.home(read.value))].last = i;
  }
  return lives;
}

// The lowest place that no value of the same time holds.
int64_t first_fit(const std::vector<const Life*>& placed, const Life& life) {
  std::vector<const Life*> held;
  for (const Life* other : placed)
    if (life.meets(*other)) held.push_back(other);
  std::sort(held.begin(), held.end(), [](const Life* a, const Life* b) { return a->offset < b->offset; });
  int64_t offset = 0;
  for (const Life* other : held) {
    if (other->offset - offset >= life.bytes) break;
    offset = std::max(offset, other->offset + other->bytes);
  }
  return offset;
}

bool is_one_of(const std::vector<int>& values, int v) { return std::count(values.begin(), values.end(), v) > 0; }

// Large values first; returns the bytes of the whole.
int64_t place(const Program& program, std::vector<Life>& lives) {
  std::vector<int> order(lives.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return lives[a].bytes > lives[b].bytes; });
  std::vector<const Life*> placed;
  int64_t total = 0;
  for (const int v : order) {
    if (is_one_of(program.inputs(), v) || is_one_of(program.outputs(), v) || program.home(v) != v) continue;
    lives[v].offset = first_fit(placed, lives[v]);
    placed.push_back(&lives[v]);
    total = std::max(total, lives[v].offset + lives[v].bytes);
  }
  return total;
}

std::vector<int64_t> sized(const Value& value, const RunSizes& sizes) {
  auto dims = value.dims;
  for (auto& d : dims)
    if (d < 0) d = sizes.free[-1 - d];
  if (sizes.batch > 0) dims.front() = sizes.batch;
  return dims;
}

// Gives the free dimensions of a value the sizes that a step makes, where they have none yet.
void take_made(const Step& step, const Value& value, const std::vector<int64_t>& made, RunSizes& sizes) {
  for (size_t d = 0; d < std::min(made.size(), value.dims.size()); ++d) {
    const int64_t dim = value.dims[d];
    if (dim < 0 && sizes.free[-1 - dim] == kUnknown) sizes.free[-1 - dim] = made[d];
  }
  if (made != sized(value, sizes))
    throw std::invalid_argument("Step \"" + step.name + "\": expected to make " + shape_text(sized(value, sizes)) +
                                ", as the steps before and the program's shapes have it, found that it makes " + shape_text(made) +
                                "; feed inputs of sizes that agree.");
}

// asked: the free sizes of the inputs, kUnknown for those that steps give a size.
Sizes make_sizes(const Program& program, RunSizes asked, int threads) {
  const auto& values = program.values();
  for (const Step& step : program.steps()) {
    if (!step.shapes) continue;
    Shapes reads;
    for (const Read& read : step.reads) reads.push_back(sized(values[read.value], asked));
    const Shapes made = step.shapes(reads);
    for (size_t i = 0; i < step.writes.size(); ++i) take_made(step, values[step.writes[i]], made[i], asked);
  }
  Sizes sizes;
  sizes.threads = threads;
  for (const Value& value : values) sizes.dims.push_back(sized(value, asked));
  return sizes;
}

Work nothing_to_do() {
  Work work;
  work.run = [](const Buffers&, const Part&) {};
  return work;
}

}  // namespace

std::shared_ptr<const Plan> make_plan(const Program& program, const RunSizes& sizes, int threads) {
  auto plan = std::make_shared<Plan>();
  plan->sizes = make_sizes(program, sizes, threads);
  auto lives = find_lives(program, plan->sizes);
  plan->scratch_offset = place(program, lives);
  for (int v = 0; v < static_cast<int>(lives.size()); ++v) {
    const Home& home = program.home_of(v);
    plan->sizes.homes.push_back(home);
    plan->offset.push_back(lives[home.value].offset == kOutside ? kOutside : lives[home.value].offset + home.offset);
  }
  for (const Step& step : program.steps()) {
    plan->work.push_back(program.is_viewed(step) ? nothing_to_do() : step.bind(plan->sizes));
    plan->scratch_stride = std::max(plan->scratch_stride, padded_bytes(plan->work.back().scratch_bytes));
  }
  plan->arena_bytes = plan->scratch_offset + threads * plan->scratch_stride;
  return plan;
}

std::vector<int64_t> free_sizes(const Program& program, const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<int64_t> free(program.free_dimensions(), kUnknown);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto& dims = program.values()[program.inputs()[i]].dims;
    auto expected = dims;
    bool fits = shapes[i].size() == dims.size();
    for (size_t d = 0; fits && d < dims.size(); ++d) {
      if (dims[d] < 0) {
        int64_t& size = free[-1 - dims[d]];
        if (size == kUnknown) size = shapes[i][d];
        expected[d] = size;
      }
      fits = shapes[i][d] == expected[d] && (shapes[i][d] > 0 || (dims[d] < 0 && program.may_be_zero(dims[d])));
    }
    if (!fits)
      throw std::invalid_argument("Expected input " + std::to_string(i) + " of shape " + shape_text(dims) +
                                  ", no dimension 0 and each free dimension alike in all inputs, found " +
                                  shape_text(shapes[i]) + ".");
  }
  return free;
}

PlanCache::PlanCache(const Program& program, int threads, int max_plans)
    : program_(program), threads_(threads), max_plans_(max_plans) {
  if (max_plans < 1) throw std::invalid_argument("Expected max_plans of at least 1, found " + std::to_string(max_plans) + ".");
}

std::shared_ptr<const Plan> PlanCache::get(const RunSizes& sizes) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.sizes == sizes; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return found->plan;
  }
  entries_.push_front({sizes, make_plan(program_, sizes, threads_)});
  if (entries_.size() > max_plans_) entries_.pop_back();
  return entries_.front().plan;
}

}  // namespace openwork
