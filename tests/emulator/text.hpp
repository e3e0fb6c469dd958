// How PTX is written: comments, statements, words, lists.
#pragma once

#include <string>
#include <vector>

namespace emulator {

using Words = std::vector<std::string>;

std::string trimmed(const std::string& text);
bool begins_with(const std::string& text, const char* beginning);
std::string without_brackets(const std::string& text);

// Splits at blanks.
Words words_of(const std::string& text);

// Splits at commas that are in no brackets.
Words operands_of(const std::string& text);

// Splits an opcode at its points; `param::entry` is one word.
Words opcode_of(const std::string& text);

// Cuts a module into headers of functions with their brace, labels with their colon, and statements without their
// semicolon. The braces of vectors stay; other ones go, since no name of ours depends on its scope.
Words statements_of(const std::string& text);

}  // namespace emulator
