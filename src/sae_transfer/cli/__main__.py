from sae_transfer.cli import main

main()
