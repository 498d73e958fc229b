"""What every package uses: params, files, items, `UserError`, randomness. It imports no package of ours."""
