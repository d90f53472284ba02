#include "runtime/trimming.h"

#include <algorithm>
#include <numeric>

#include "runtime/slicing.h"

namespace openwork {

namespace {

// Lengths are rounded up to whole multiples, so that few plans serve all texts.
constexpr int64_t kLengthStep = 8;
// A shorter text joins a group while no more than this part of the group is padding again.
constexpr double kMostPadding = 0.125;
// What running apart must gain over all threads on each text, whose steps wait for one another.
constexpr double kApartGain = 0.95;
// Where less of the rows is left out, the batch runs as it came.
constexpr double kWorthwhile = 0.97;

bool has(const Value& value, int64_t dimension) {
  return std::count(value.dims.begin(), value.dims.end(), dimension) > 0;
}

// Whether a length stands in the second place alone.
bool in_its_place(const Value& value, int64_t dimension) {
  const int64_t count = std::count(value.dims.begin(), value.dims.end(), dimension);
  return count == 0 || (count == 1 && value.dims.size() > 1 && value.dims[1] == dimension);
}

// The input that the steps pass over positions by; kAbsent where there is none.
int find_mask(const Program& program) {
  for (const Step& step : program.steps())
    if (step.mask != kAbsent) return std::count(program.inputs().begin(), program.inputs().end(), step.mask) > 0 ? step.mask : kAbsent;
  return kAbsent;
}

// Whether what is left out of the texts changes nothing that the step makes of the rest; `least` grows to what it reads at least.
bool keeps(const Program& program, const Step& step, int64_t dimension, Trimming& found) {
  const auto& values = program.values();
  const auto sized = [&](int v) { return has(values[static_cast<size_t>(v)], dimension); };
  const bool reads = std::any_of(step.reads.begin(), step.reads.end(), [&](const Read& r) { return r.value != kAbsent && sized(r.value); });
  const bool writes = std::any_of(step.writes.begin(), step.writes.end(), [&](int v) { return v != kAbsent && sized(v); });
  if (!reads) return !writes;
  found.least = std::max(found.least, step.front);
  if (step.mask != kAbsent) return step.mask == found.mask;
  return step.front > 0 || (step.apart && writes);
}

int64_t rows_of(const std::vector<TextGroup>& groups) {
  return std::accumulate(groups.begin(), groups.end(), int64_t{0}, [](int64_t sum, const TextGroup& g) { return sum + g.count * g.length; });
}

// What the busiest thread has to do, each taking the next group when it is free.
int64_t longest_share(const std::vector<TextGroup>& groups, int threads) {
  std::vector<int64_t> share(static_cast<size_t>(threads), 0);
  for (const TextGroup& group : groups) *std::min_element(share.begin(), share.end()) += group.count * group.length;
  return *std::max_element(share.begin(), share.end());
}

// Neighbours in order, until there are rows enough for the register tiles.
std::vector<TextGroup> group_texts(const std::vector<int64_t>& lengths, const std::vector<int64_t>& order) {
  std::vector<TextGroup> groups;
  int64_t padding = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t length = lengths[static_cast<size_t>(order[i])];
    if (!groups.empty()) {
      TextGroup& last = groups.back();
      const int64_t more = padding + last.length - length;
      const bool full = last.count * last.length >= kSliceRows;
      if (!full && static_cast<double>(more) <= kMostPadding * static_cast<double>((last.count + 1) * last.length)) {
        ++last.count;
        padding = more;
        continue;
      }
    }
    groups.push_back({static_cast<int64_t>(i), 1, length});
    padding = 0;
  }
  return groups;
}

}  // namespace

std::optional<Trimming> find_trimming(const Program& program) {
  const int mask = find_mask(program);
  if (mask == kAbsent || !has_batch(program)) return std::nullopt;
  const auto& values = program.values();
  const Value& given = values[static_cast<size_t>(mask)];
  if (given.dtype != DType::i64 || given.dims.size() != 2 || given.dims[1] >= 0 || given.dims[1] == given.dims[0]) return std::nullopt;
  const int64_t dimension = given.dims[1];
  Trimming found{mask, static_cast<size_t>(-1 - dimension)};
  const auto& outputs = program.outputs();
  const bool placed = std::all_of(values.begin(), values.end(), [&](const Value& v) { return in_its_place(v, dimension); });
  const bool gone = std::none_of(outputs.begin(), outputs.end(), [&](int v) { return has(values[static_cast<size_t>(v)], dimension); });
  const bool kept = std::all_of(program.steps().begin(), program.steps().end(),
                                [&](const Step& step) { return keeps(program, step, dimension, found); });
  if (!placed || !gone || !kept) return std::nullopt;
  return found;
}

std::vector<int64_t> text_lengths(const int64_t* mask, int64_t batch, int64_t padded, int64_t least) {
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < batch; ++b, mask += padded) {
    int64_t length = padded;
    while (length > least && mask[length - 1] == 0) --length;
    lengths.push_back(length);
  }
  return lengths;
}

Texts cut_texts(const std::vector<int64_t>& lengths, int64_t padded, int threads) {
  if (lengths.empty()) return {};
  std::vector<int64_t> rounded;
  for (const int64_t length : lengths) rounded.push_back(std::min(padded, (length + kLengthStep - 1) / kLengthStep * kLengthStep));
  Texts texts;
  texts.order.resize(lengths.size());
  std::iota(texts.order.begin(), texts.order.end(), 0);
  std::stable_sort(texts.order.begin(), texts.order.end(),
                   [&](int64_t a, int64_t b) { return rounded[static_cast<size_t>(a)] > rounded[static_cast<size_t>(b)]; });
  const auto batch = static_cast<int64_t>(lengths.size());
  const int64_t longest = rounded[static_cast<size_t>(texts.order[0])];
  const auto groups = group_texts(rounded, texts.order);
  const double whole = static_cast<double>(batch * padded);
  const double together = static_cast<double>(batch * longest) / threads;
  texts.apart = groups.size() > 1 && static_cast<double>(longest_share(groups, threads)) <= kApartGain * together;
  const int64_t rows = texts.apart ? rows_of(groups) : batch * longest;
  if (static_cast<double>(rows) > kWorthwhile * whole) return {};
  texts.groups = texts.apart ? groups : std::vector<TextGroup>{{0, batch, longest}};
  return texts;
}

}  // namespace openwork
