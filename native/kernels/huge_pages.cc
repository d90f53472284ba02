#include "kernels/huge_pages.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>

namespace openwork {

void ask_for_huge_pages([[maybe_unused]] void* block, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = reinterpret_cast<std::uintptr_t>(block), end = begin + bytes;
  const auto first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  // What is refused runs on small pages.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

void FreeBlock::operator()(std::byte* p) const { ::operator delete[](p, alignment); }

MemoryBlock make_block(std::size_t bytes) {
  const auto alignment = std::align_val_t(bytes >= kHugePage ? kHugePage : 64);
  MemoryBlock block(static_cast<std::byte*>(::operator new[](bytes, alignment)), {alignment});
  ask_for_huge_pages(block.get(), bytes);
  return block;
}

}  // namespace openwork
