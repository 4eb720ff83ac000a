"""Where rows come from: one source a file, plain functions that a recipe names.

A source of questions is `prompts(split, **args) -> Iterator[dict]`, `split` being `train` or `test`. A row has
`messages` (a chat that ends with the user's turn) and may have `id`, `domain` and `language`; every other column
(`answer`, ...) is handed to the reward. A source of dialogues for SFT is `dialogues(split, **args)`: its `messages`
end with the assistant's turn (`content`, and in reasoning mode `reasoning_content`), and it names the `mode`.
docs/data.md lists all sources.
"""
