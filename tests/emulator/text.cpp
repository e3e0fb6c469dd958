// How PTX is written: comments, statements, words, lists.
#include "text.hpp"

#include <algorithm>
#include <array>
#include <sstream>

namespace emulator {

namespace {

// Lines without a semicolon that say nothing to us; those of a kernel's threads belong to its header.
const std::array IGNORED_LINES{".version", ".target", ".address_size", ".file", ".loc"};

}  // namespace

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n";
  size_t begin = text.find_first_not_of(blanks);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

bool begins_with(const std::string& text, const char* beginning) { return text.rfind(beginning, 0) == 0; }

Words words_of(const std::string& text) {
  std::istringstream stream(text);
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

Words operands_of(const std::string& text) {
  Words operands;
  std::string operand;
  int depth = 0;
  for (char letter : text + ",") {
    if (letter == ',' && depth == 0) {
      if (operand = trimmed(operand); !operand.empty()) operands.push_back(operand);
      operand.clear();
      continue;
    }
    depth += (letter == '{' || letter == '[' || letter == '(') - (letter == '}' || letter == ']' || letter == ')');
    operand += letter;
  }
  return operands;
}

std::string without_brackets(const std::string& text) { return text.substr(1, text.size() - 2); }

Words opcode_of(const std::string& text) {
  std::istringstream stream(text);
  Words words;
  for (std::string word; std::getline(stream, word, '.');) words.push_back(word);
  return words;
}

namespace {

std::string without_comments(const std::string& text) {
  std::istringstream stream(text);
  std::string rest;
  for (std::string line; std::getline(stream, line);) {
    line = trimmed(line.substr(0, line.find("//")));
    bool is_ignored = std::any_of(IGNORED_LINES.begin(), IGNORED_LINES.end(),
                                  [&](const char* word) { return begins_with(line, word); });
    if (!is_ignored) rest += line + "\n";
  }
  return rest;
}

}  // namespace

Words statements_of(const std::string& commented) {
  std::string text = without_comments(commented);
  Words statements;
  std::string statement;
  bool is_vector = false;
  auto finish = [&](const std::string& ending) {
    if (statement = trimmed(statement); !statement.empty()) statements.push_back(statement + ending);
    statement.clear();
  };
  auto begins_block = [&] {
    bool is_header = statement.find(".entry") != std::string::npos || statement.find(".func") != std::string::npos;
    return is_header || trimmed(statement).empty();
  };
  for (size_t at = 0; at < text.size(); ++at) {
    char letter = text[at];
    if (letter == ';' || (letter == '}' && !is_vector)) {
      finish("");
    } else if (letter == '{' && begins_block()) {
      finish(" {");
    } else if (letter == ':' && text[at + 1] == '\n' && words_of(statement).size() == 1) {
      finish(":");
    } else {
      if (letter == '{' || letter == '}') is_vector = letter == '{';
      statement += letter;
    }
  }
  return statements;
}

}  // namespace emulator
